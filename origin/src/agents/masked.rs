//! Secrets in an agent's settings, which are shown masked. A masked one that is sent back means: as it is.

use crate::store::agents::realtime::mcp::Secret;
use crate::store::agents::realtime::{McpServer, RealtimeSettings};

/// What is shown in place of a secret.
pub const MASK: &str = "********";

/// The settings as they are shown.
pub fn mask(settings: &RealtimeSettings) -> RealtimeSettings {
    let mut shown = settings.clone();
    for secret in shown.mcp_servers.iter_mut().flat_map(secrets) {
        *secret = MASK.to_owned().into();
    }
    shown
}

/// The settings as they are meant: what is masked is taken from what is stored, of the server of the same label and
/// URL. A server at another URL must not be told a secret by somebody who does not know it.
pub fn unmask(
    sent: &RealtimeSettings,
    stored: Option<&RealtimeSettings>,
    faults: &mut Vec<String>,
) -> RealtimeSettings {
    let mut meant = sent.clone();
    for (at, server) in meant.mcp_servers.iter_mut().enumerate() {
        let known = stored.and_then(|stored| {
            stored.mcp_servers.iter().find(|known| known.label == server.label && known.url == server.url)
        });
        if let Some(token) = server.authorization.as_mut().filter(|token| token.expose() == MASK) {
            match known.and_then(|known| known.authorization.clone()) {
                Some(stored) => *token = stored,
                None => faults.push(format!("realtime.mcpServers[{at}].authorization is masked, and not known")),
            }
        }
        for (name, value) in server.headers.iter_mut().filter(|(_, value)| value.expose() == MASK) {
            match known.and_then(|known| known.headers.get(name).cloned()) {
                Some(stored) => *value = stored,
                None => faults.push(format!("realtime.mcpServers[{at}].headers is masked, and not known")),
            }
        }
    }
    meant
}

fn secrets(server: &mut McpServer) -> impl Iterator<Item = &mut Secret> {
    server.authorization.iter_mut().chain(server.headers.values_mut())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(label: &str, url: &str, token: &str) -> RealtimeSettings {
        let server =
            serde_json::json!({ "label": label, "url": url, "authorization": token, "headers": { "a": token } });
        serde_json::from_value(serde_json::json!({ "voice": "marin", "mcpServers": [server] })).unwrap()
    }

    #[test]
    fn what_is_shown_can_be_sent_back() {
        let stored = settings("crm", "https://mcp.test", "swordfish");
        let shown = mask(&stored);
        assert!(!serde_json::to_string(&shown).unwrap().contains("swordfish"));
        let mut faults = Vec::new();
        assert_eq!(unmask(&shown, Some(&stored), &mut faults), stored);
        assert_eq!(faults, [""; 0]);
        let other = settings("crm", "https://mcp.test", "another");
        assert_eq!(unmask(&other, Some(&stored), &mut faults), other);
        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn a_secret_does_not_move_to_another_server() {
        let stored = settings("crm", "https://mcp.test", "swordfish");
        for (label, url) in [("crm", "https://evil.test"), ("other", "https://mcp.test")] {
            let mut faults = Vec::new();
            let meant = unmask(&settings(label, url, MASK), Some(&stored), &mut faults);
            assert!(!serde_json::to_string(&meant).unwrap().contains("swordfish"));
            assert_eq!(faults.len(), 2);
        }
    }
}
