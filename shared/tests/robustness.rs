//! Whatever the world sends, parsers answer; they never panic, and they never take a forgery for genuine.
#![cfg(not(target_arch = "wasm32"))]

use proptest::prelude::*;
use shared::hop::{self, SignedRequest};
use shared::route::{AssistantRoute, NumberRoute};
use shared::twilio::answer::attempt;
use shared::twilio::form::Form;
use shared::twilio::signature::{self, Signed};
use shared::twilio::webhook::{CallWebhook, delivery_id};
use shared::vapi::auth::{self, Credentials};
use shared::vapi::message::Message;
use shared::{CallSid, E164, stream_token};

/// Bytes that look like what the parsers read, more often than chance would have it.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("CallSid=CA01&"),
        Just("To=%2B15550100&"),
        Just("%"),
        Just("%zz"),
        Just("+"),
        Just("="),
        Just("{\"message\":{\"type\":\"tool-calls\",\"toolCallList\":["),
        Just("{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}"),
        Just("]}}"),
        Just("\\u0000"),
        Just("é"),
        Just("t=1,v1=00"),
        Just("v1.CA01.01890a5d-ac96-774b-bcce-b302099a8057.1.AAAA"),
    ];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        proptest::collection::vec(word, 0..8).prop_map(|words| words.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn twilio(body in bytes(), url in ".{0,60}", signature in ".{0,40}", settings in proptest::option::of(".{0,40}")) {
        if let Ok(form) = Form::parse(&body) {
            let _ = CallWebhook::from_form(&form);
            prop_assert!(delivery_id("/twilio/status", &form, None).is_ascii());
            let request = signature::Request {
                url: &url, signed: Signed::Form(&form), signature: &signature, settings: settings.as_deref(),
            };
            prop_assert!(!signature::verify(&["0123456789abcdef"], request));
        }
        let raw = signature::Request { url: &url, signed: Signed::Body(&body), signature: &signature, settings: None };
        prop_assert!(!signature::verify(&["0123456789abcdef"], raw));
        prop_assert!(attempt(&url) >= 1);
    }

    #[test]
    fn vapi(body in bytes(), header in ".{0,60}", timestamp in "[0-9]{0,20}") {
        if let Ok(message) = Message::parse(&body) {
            for refusal in [shared::vapi::answer::Refusal::Switched, shared::vapi::answer::Refusal::Unavailable] {
                prop_assert!(shared::vapi::answer::refuse(&message, refusal).is_object());
            }
        }
        let credentials = Credentials {
            secret: Some(&header), authorization: Some(&header), signature: Some(&header), timestamp: Some(&timestamp),
        };
        prop_assert!(!auth::verify(&["a secret that nobody guesses"], 1_795_000_000, credentials, &body));
    }

    #[test]
    fn ours(body in bytes(), header in ".{0,80}", now in any::<u64>()) {
        let text = String::from_utf8_lossy(&body);
        let request = SignedRequest { method: "POST", path_and_query: "/twilio/voice", body: &body };
        prop_assert!(hop::verify("a secret that nobody guesses", now, &header, request).is_err());
        prop_assert!(hop::verify("a secret that nobody guesses", now, &text, request).is_err());
        let call: CallSid = "CA01".parse().expect("a call SID");
        prop_assert!(stream_token::verify("a secret that nobody guesses", now, &text, &call).is_err());
        let _ = serde_json::from_slice::<NumberRoute>(&body);
        let _ = serde_json::from_slice::<AssistantRoute>(&body);
        if let Ok(number) = text.parse::<E164>() {
            prop_assert_eq!(number.masked().len(), number.as_str().len());
        }
    }
}
