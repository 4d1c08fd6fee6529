//! Which requests come in: path, method, size, media type, proof of the sender, and a body that can be read.

use shared::route::{AssistantRoute, NumberRoute};
use shared::twilio::answer::path;
use shared::twilio::form::Form;
use shared::twilio::signature::{self, Signed};
use shared::twilio::webhook::{CallWebhook, IDEMPOTENCY_HEADER, delivery_id};
use shared::vapi;
use shared::vapi::auth::{self, Credentials};
use shared::vapi::message::Message;

use crate::head::Head;
use crate::reply::Problem;
use crate::settings::Settings;

/// How much of a body is read, in bytes. A Twilio webhook is a few kilobytes; a report of Vapi's repeats the whole
/// conversation several times, about 100 KB for each ten minutes of talk.
pub const MAX_BODY_BYTES: u32 = 1024 * 1024;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Liveness.
    Health,
    /// An incoming Twilio call.
    Voice,
    /// A Twilio call whose stream has ended.
    Resume,
    /// A Twilio call or stream changed state.
    CallEvent,
    /// A Vapi server message.
    Vapi,
}

impl Endpoint {
    /// The endpoint of a request that may go on to send its body.
    pub fn of(head: &Head) -> Result<Self, Problem> {
        let endpoint = match head.path() {
            "/healthz" => Self::Health,
            path::VOICE => Self::Voice,
            path::RESUME => Self::Resume,
            path::STATUS | path::STREAM_STATUS => Self::CallEvent,
            vapi::WEBHOOK_PATH => Self::Vapi,
            _ => return Err(Problem::NotFound),
        };
        let (allowed, media_types): (_, &[&str]) = match endpoint {
            Self::Health => ("GET", &[]),
            // Twilio signs JSON as well; what becomes of it is decided once it is proven to be Twilio's.
            Self::Voice | Self::Resume | Self::CallEvent => ("POST", &[FORM, JSON]),
            Self::Vapi => ("POST", &[JSON]),
        };
        if head.method() != allowed {
            return Err(Problem::MethodNotAllowed { allowed });
        }
        if endpoint == Self::Health {
            return Ok(endpoint);
        }
        let length = head.header("content-length").and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > u64::from(MAX_BODY_BYTES)) {
            return Err(Problem::BodyTooLarge);
        }
        // It is forwarded as it came, so it must be a header's value in every runtime.
        if !media_types.iter().any(|media_type| is(head, media_type)) || !content_type(head).is_ascii() {
            return Err(Problem::UnsupportedMediaType);
        }
        Ok(endpoint)
    }
}

fn content_type(head: &Head) -> &str {
    head.header("content-type").unwrap_or_default()
}

fn is(head: &Head, media_type: &str) -> bool {
    content_type(head).split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

/// A webhook whose sender is proven.
#[derive(Clone, Debug, PartialEq)]
pub enum Webhook {
    /// An incoming Twilio call.
    Voice(TwilioWebhook),
    /// A Twilio call whose stream has ended.
    Resume(TwilioWebhook),
    /// A Twilio call or stream changed state.
    CallEvent(TwilioWebhook),
    /// A Vapi server message.
    Vapi(Box<Message>),
}

/// A webhook of Twilio's, whichever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwilioWebhook {
    /// What it says about the call.
    pub call: CallWebhook,
    /// Its idempotency key.
    pub delivery: String,
}

impl Webhook {
    /// The replica's key for its route; `None` when the replica is not asked.
    pub fn route_key(&self) -> Option<String> {
        match self {
            Self::Voice(webhook) => webhook.call.to.as_ref().map(NumberRoute::key),
            Self::Resume(_) | Self::CallEvent(_) => None,
            Self::Vapi(message) => message.assistant_id.as_ref().map(AssistantRoute::key),
        }
    }

    /// The webhook's idempotency key.
    pub fn delivery(&self) -> &str {
        match self {
            Self::Voice(webhook) | Self::Resume(webhook) | Self::CallEvent(webhook) => &webhook.delivery,
            Self::Vapi(message) => &message.delivery_id,
        }
    }

    /// The sender's id of the call, for the log.
    pub fn call_id(&self) -> Option<&str> {
        match self {
            Self::Voice(webhook) | Self::Resume(webhook) | Self::CallEvent(webhook) => {
                Some(webhook.call.call_sid.as_str())
            }
            Self::Vapi(message) => message.call_id.as_ref().map(shared::VapiCallId::as_str),
        }
    }
}

/// The public URL that the sender requested, without path and query.
pub fn public_base<'a>(settings: &'a Settings, head: &'a Head) -> &'a str {
    settings.edge_url.as_deref().unwrap_or_else(|| head.origin())
}

/// A webhook that does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub problem: Problem,
    /// Whether its sender is proven nevertheless.
    pub proven: bool,
}

impl Refused {
    const fn unproven(problem: Problem) -> Self {
        Self { problem, proven: false }
    }

    const fn proven(problem: Problem) -> Self {
        Self { problem, proven: true }
    }
}

/// What can be refused before the body is read: a request without any proof of its sender, or with a wrong secret.
pub fn enter(endpoint: Endpoint, head: &Head, settings: &Settings, now: u64) -> Result<(), Problem> {
    match endpoint {
        Endpoint::Health => Ok(()),
        Endpoint::Voice | Endpoint::Resume | Endpoint::CallEvent => {
            let signed = head.header(signature::SIGNATURE_HEADER).is_some_and(|signature| !signature.is_empty());
            if signed { Ok(()) } else { Err(Problem::SignatureInvalid) }
        }
        Endpoint::Vapi => {
            let credentials = credentials(head);
            // Only an HMAC credential covers the body.
            let covered = credentials.signature.is_some() && credentials.timestamp.is_some();
            let known = covered || auth::verify(&settings.vapi_secrets, now, credentials, b"");
            if known { Ok(()) } else { Err(Problem::Unauthorized) }
        }
    }
}

/// Checks who sent a body and reads it. `now` is in unix seconds.
pub fn admit(endpoint: Endpoint, head: &Head, body: &[u8], settings: &Settings, now: u64) -> Result<Webhook, Refused> {
    match endpoint {
        Endpoint::Voice => admit_twilio(head, body, settings).map(Webhook::Voice),
        Endpoint::Resume => admit_twilio(head, body, settings).map(Webhook::Resume),
        Endpoint::CallEvent => admit_twilio(head, body, settings).map(Webhook::CallEvent),
        Endpoint::Vapi => admit_vapi(head, body, settings, now).map(Box::new).map(Webhook::Vapi),
        Endpoint::Health => Err(Refused::unproven(Problem::NotFound)),
    }
}

fn admit_twilio(head: &Head, body: &[u8], settings: &Settings) -> Result<TwilioWebhook, Refused> {
    let signed_by_twilio = |signed| {
        let url = format!("{}{}", public_base(settings, head), head.path_and_query());
        let request = signature::Request {
            url: &url,
            signed,
            signature: head.header(signature::SIGNATURE_HEADER).unwrap_or_default(),
            settings: head.header(signature::SETTINGS_HEADER),
        };
        if signature::verify(&settings.twilio_tokens, request) {
            Ok(())
        } else {
            Err(Refused::unproven(Problem::SignatureInvalid))
        }
    };
    if is(head, JSON) {
        signed_by_twilio(Signed::Body(body))?;
        // Twilio's webhooks about calls are forms; a product that sends JSON was pointed at the wrong path.
        return Err(Refused::proven(Problem::UnsupportedMediaType));
    }
    let form = Form::parse(body).map_err(|_| Refused::unproven(Problem::MalformedForm))?;
    signed_by_twilio(Signed::Form(&form))?;
    let call = CallWebhook::from_form(&form).map_err(|_| Refused::proven(Problem::MalformedForm))?;
    let delivery = delivery_id(head.path(), &form, head.header(IDEMPOTENCY_HEADER));
    Ok(TwilioWebhook { call, delivery })
}

fn admit_vapi(head: &Head, body: &[u8], settings: &Settings, now: u64) -> Result<Message, Refused> {
    if !auth::verify(&settings.vapi_secrets, now, credentials(head), body) {
        return Err(Refused::unproven(Problem::Unauthorized));
    }
    Message::parse(body).map_err(|_| Refused::proven(Problem::MalformedMessage))
}

fn credentials(head: &Head) -> Credentials<'_> {
    Credentials {
        secret: head.header("x-vapi-secret"),
        authorization: head.header("authorization"),
        signature: head.header("x-signature"),
        timestamp: head.header("x-timestamp"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use shared::hmac::{Algorithm, mac};

    use super::*;
    use crate::settings::tests::settings;

    pub(crate) const NOW: u64 = 1_795_000_000;
    const CALL: &str = "CallSid=CA01&To=%2B15550100&CallStatus=ringing";

    pub(crate) fn head(method: &str, path_and_query: &str, headers: &[(&str, &str)]) -> Head {
        let mut lines = vec![method.to_owned(), format!("https://edge.example{path_and_query}")];
        lines.extend(headers.iter().map(|(name, value)| format!("{name}:{value}")));
        Head::new(lines.join("\n"))
    }

    /// What Twilio signs for these few fields, which are in order already.
    fn twilio_signature(token: &str, path_and_query: &str) -> String {
        let text = format!("https://edge.example{path_and_query}CallSidCA01CallStatusringingTo+15550100");
        STANDARD.encode(mac(Algorithm::Sha1, token.as_bytes(), &[text.as_bytes()]))
    }

    #[test]
    fn the_door() {
        let form = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
        let json = ("content-type", "Application/JSON");
        let of = |method, path, headers: &[_]| Endpoint::of(&head(method, path, headers));
        assert_eq!(of("POST", "/twilio/voice?attempt=2", &[form]), Ok(Endpoint::Voice));
        assert_eq!(of("POST", "/twilio/resume", &[form]), Ok(Endpoint::Resume));
        assert_eq!(of("POST", "/twilio/status", &[form]), Ok(Endpoint::CallEvent));
        assert_eq!(of("POST", "/twilio/stream-status", &[form]), Ok(Endpoint::CallEvent));
        assert_eq!(of("POST", "/api/vapi/webhook", &[json]), Ok(Endpoint::Vapi));
        assert_eq!(of("GET", "/healthz", &[]), Ok(Endpoint::Health));
        for path in ["/", "", "/twilio/voice/", "/Twilio/voice", "/twilio//voice", "/api/vapi"] {
            assert_eq!(of("POST", path, &[form]), Err(Problem::NotFound), "{path}");
        }
        assert_eq!(of("GET", "/twilio/voice", &[]), Err(Problem::MethodNotAllowed { allowed: "POST" }));
        assert_eq!(of("POST", "/healthz", &[]), Err(Problem::MethodNotAllowed { allowed: "GET" }));
        assert_eq!(of("POST", "/twilio/voice", &[json]), Ok(Endpoint::Voice));
        assert_eq!(of("POST", "/twilio/voice", &[]), Err(Problem::UnsupportedMediaType));
        assert_eq!(of("POST", "/api/vapi/webhook", &[form]), Err(Problem::UnsupportedMediaType));
        let strange = ("content-type", "application/json; x=é");
        assert_eq!(of("POST", "/api/vapi/webhook", &[strange]), Err(Problem::UnsupportedMediaType));
        let length = |length| [form, ("content-length", length)];
        assert_eq!(of("POST", "/twilio/voice", &length("1048577")), Err(Problem::BodyTooLarge));
        assert_eq!(of("POST", "/twilio/voice", &length("1048576")), Ok(Endpoint::Voice));
    }

    #[test]
    fn twilio_with_either_token_and_nobody_else() {
        let admit = |path, signature: &str| {
            let head = head("POST", path, &[(signature::SIGNATURE_HEADER, signature), (IDEMPOTENCY_HEADER, "tok")]);
            admit(Endpoint::Voice, &head, CALL.as_bytes(), &settings(), NOW)
        };
        for token in ["current", "next"] {
            let webhook =
                admit("/twilio/voice?attempt=2", &twilio_signature(token, "/twilio/voice?attempt=2")).unwrap();
            assert_eq!(webhook.route_key().as_deref(), Some("number:+15550100"));
            assert_eq!(webhook.delivery(), "twilio:tok");
            assert_eq!(webhook.call_id(), Some("CA01"));
        }
        for signature in [
            String::new(),
            "?".to_owned(),
            twilio_signature("other", "/twilio/voice"),
            twilio_signature("", "/twilio/voice"),
            twilio_signature("current", "/twilio/status"),
        ] {
            let refused = Err(Refused { problem: Problem::SignatureInvalid, proven: false });
            assert_eq!(admit("/twilio/voice", &signature), refused, "{signature}");
        }
    }

    #[test]
    fn without_a_public_url_the_requested_host_is_signed() {
        let settings = Settings { edge_url: None, ..settings() };
        let signature = twilio_signature("current", "/twilio/voice");
        let head = head("POST", "/twilio/voice", &[(signature::SIGNATURE_HEADER, &signature)]);
        assert!(admit(Endpoint::Voice, &head, CALL.as_bytes(), &settings, NOW).is_ok());
    }

    #[test]
    fn a_signed_form_without_a_call_is_malformed() {
        let text = "https://edge.example/twilio/voiceTo+15550100";
        let signature = STANDARD.encode(mac(Algorithm::Sha1, b"current", &[text.as_bytes()]));
        let head = head("POST", "/twilio/voice", &[(signature::SIGNATURE_HEADER, &signature)]);
        let admit = |body: &[u8]| admit(Endpoint::Voice, &head, body, &settings(), NOW);
        let malformed = |proven| Err(Refused { problem: Problem::MalformedForm, proven });
        assert_eq!(admit(b"To=%2B15550100"), malformed(true));
        assert_eq!(admit(b"To=%FF"), malformed(false));
    }

    #[test]
    fn vapi_with_its_secret_and_nobody_else() {
        let admit = |headers: &[(&str, &str)], body: &str| {
            admit(Endpoint::Vapi, &head("POST", "/api/vapi/webhook", headers), body.as_bytes(), &settings(), NOW)
        };
        let body = r#"{"message":{"type":"tool-calls","call":{"id":"c1","assistantId":"a1"}}}"#;
        for header in [("x-vapi-secret", "vapi-secret"), ("authorization", "Bearer vapi-secret")] {
            let webhook = admit(&[header], body).unwrap();
            assert_eq!(webhook.route_key().as_deref(), Some("assistant:a1"));
            assert_eq!(webhook.call_id(), Some("c1"));
        }
        let unauthorized = Err(Refused { problem: Problem::Unauthorized, proven: false });
        assert_eq!(admit(&[], body), unauthorized);
        assert_eq!(admit(&[("x-vapi-secret", "vapi")], body), unauthorized);
        let malformed = Err(Refused { problem: Problem::MalformedMessage, proven: true });
        assert_eq!(admit(&[("x-vapi-secret", "vapi-secret")], "{}"), malformed);
        // Nothing of a body is read before its sender is known.
        assert_eq!(admit(&[], "{}"), unauthorized);
    }

    #[test]
    fn without_a_proof_no_body_is_read() {
        let enter = |endpoint, headers: &[(&str, &str)]| enter(endpoint, &head("POST", "/", headers), &settings(), NOW);
        for endpoint in [Endpoint::Voice, Endpoint::Resume, Endpoint::CallEvent] {
            assert_eq!(enter(endpoint, &[]), Err(Problem::SignatureInvalid));
            assert_eq!(enter(endpoint, &[(signature::SIGNATURE_HEADER, "")]), Err(Problem::SignatureInvalid));
            assert_eq!(enter(endpoint, &[(signature::SIGNATURE_HEADER, "x")]), Ok(()));
        }
        for good in [("x-vapi-secret", "vapi-secret"), ("authorization", "Bearer vapi-secret")] {
            assert_eq!(enter(Endpoint::Vapi, &[good]), Ok(()));
        }
        for bad in
            [("x-vapi-secret", "vapi"), ("authorization", "Bearer x"), ("x-signature", "00"), ("x-timestamp", "1")]
        {
            assert_eq!(enter(Endpoint::Vapi, &[bad]), Err(Problem::Unauthorized), "{bad:?}");
        }
        assert_eq!(enter(Endpoint::Vapi, &[("x-signature", "00"), ("x-timestamp", "1")]), Ok(()));
    }

    #[test]
    fn signed_json_is_twilios_but_no_call() {
        let body = br#"{"CallSid":"CA01"}"#;
        let hash = shared::hmac::to_hex(&<sha2::Sha256 as sha2::Digest>::digest(body));
        let path = format!("/twilio/status?bodySHA256={hash}");
        let signature = STANDARD.encode(mac(Algorithm::Sha1, b"current", &[b"https://edge.example", path.as_bytes()]));
        let headers = [("content-type", JSON), (signature::SIGNATURE_HEADER, signature.as_str())];
        let head = head("POST", &path, &headers);
        let admit = |body: &[u8]| admit(Endpoint::CallEvent, &head, body, &settings(), NOW);
        assert_eq!(admit(body), Err(Refused { problem: Problem::UnsupportedMediaType, proven: true }));
        assert_eq!(admit(b"{}"), Err(Refused { problem: Problem::SignatureInvalid, proven: false }));
    }
}
