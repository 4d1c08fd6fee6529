//! An event over which this Worker panicked: it was put on the queue as it came, and is admitted by the consumer. The
//! other half is `salvage.js`.

use serde::Deserialize;

use crate::admit::{Endpoint, Webhook, admit, enter};
use crate::head::Head;
use crate::reply::Problem;
use crate::retry::{Body, Event};
use crate::settings::Settings;

/// A request that nobody has looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Salvaged {
    /// Method, URL and headers: see [`crate::head`].
    pub head: String,
    /// Unix time in milliseconds. A proof that ages is as old as it was then.
    pub arrived_at: u64,
    /// The body, compressed, then base64.
    pub gzip: String,
}

impl Salvaged {
    /// The event, if its sender proves to be genuine. `body` is what was compressed.
    pub fn admit(&self, body: &[u8], settings: &Settings) -> Result<Event<'static>, Problem> {
        let head = Head::new(self.head.clone());
        let endpoint = Endpoint::of(&head)?;
        let at = std::time::Duration::from_millis(self.arrived_at).as_secs();
        enter(endpoint, &head, settings, at)?;
        let webhook: Webhook = admit(endpoint, &head, body, settings, at).map_err(|refused| refused.problem)?;
        Ok(Event {
            path: head.path_and_query().to_owned().into(),
            content_type: head.header("content-type").unwrap_or_default().to_owned().into(),
            delivery: webhook.delivery().to_owned().into(),
            enqueued_at: self.arrived_at,
            body: Body::Gzip(self.gzip.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::twilio::answer::path;
    use shared::vapi;
    use shared::vapi::message::Message;

    use super::*;
    use crate::settings::tests::settings;

    const ENTRY: &str = include_str!("salvage.js");

    fn list(name: &str) -> Vec<&str> {
        let (_, rest) = ENTRY.split_once(&format!("const {name} = [")).unwrap();
        let (list, _) = rest.split_once(']').unwrap();
        list.split('"').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_entry_knows_every_path_and_every_question() {
        assert_eq!(list("CALLS"), [path::VOICE, path::RESUME]);
        assert_eq!(list("EVENTS"), [path::STATUS, path::STREAM_STATUS]);
        assert!(ENTRY.contains(&format!("const MESSAGES = \"{}\";", vapi::WEBHOOK_PATH)));
        let needs_answer = |kind: &str| {
            let body = json!({"message": {"type": kind}}).to_string();
            Message::parse(body.as_bytes()).unwrap().kind.needs_answer()
        };
        assert_eq!(list("QUESTIONS").len(), 7);
        assert!(list("QUESTIONS").into_iter().all(needs_answer));
        assert!(!["status-update", "end-of-call-report", "hang"].into_iter().any(needs_answer));
        assert!(ENTRY.contains("MAX_BODY_BYTES = 1024 * 1024;") && crate::admit::MAX_BODY_BYTES == 1024 * 1024);
        assert!(ENTRY.contains("MAX_MESSAGE_BYTES = 127_000;") && crate::retry::MAX_MESSAGE_BYTES == 127_000);
    }

    #[test]
    fn only_a_genuine_one_becomes_an_event() {
        let text = |secret: &str| {
            let head = format!(
                "POST\nhttps://edge.example/api/vapi/webhook?x=1\ncontent-type:application/json\nx-vapi-secret:{secret}"
            );
            json!({"head": head, "arrivedAt": 1_795_000_000_123_u64, "gzip": "H4s="}).to_string()
        };
        let salvaged = |secret| serde_json::from_str::<Salvaged>(&text(secret)).unwrap();
        let body = br#"{"message":{"type":"hang","call":{"id":"c1"}}}"#;
        let event = salvaged("vapi-secret").admit(body, &settings()).unwrap();
        assert_eq!((event.path.as_ref(), event.content_type.as_ref()), ("/api/vapi/webhook?x=1", "application/json"));
        assert!(event.delivery.starts_with("vapi:c1:hang:"), "{event:?}");
        assert_eq!((event.enqueued_at, event.body), (1_795_000_000_123, Body::Gzip("H4s=".into())));
        assert_eq!(salvaged("other").admit(body, &settings()), Err(Problem::Unauthorized));
        assert_eq!(salvaged("vapi-secret").admit(b"{", &settings()), Err(Problem::MalformedMessage));
    }
}
