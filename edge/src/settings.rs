//! The Worker's settings: read once an isolate, checked all together.

/// Where Vapi's API is unless it is told otherwise.
const VAPI_API_URL: &str = "https://api.vapi.ai";

/// What the Worker is configured with. Not printable: it holds secrets.
#[derive(Clone)]
pub struct Settings {
    /// `ORIGIN_URL`: where webhooks are forwarded to, without a trailing slash.
    pub origin_url: String,
    /// `MEDIA_URL`: where Twilio opens a call's audio.
    pub media_url: String,
    /// `EDGE_URL`: the Worker's own public base, which Twilio signs; the requested host when not set.
    pub edge_url: Option<String>,
    /// `VAPI_API_URL`.
    pub vapi_api_url: String,
    /// `TWILIO_AUTH_TOKEN`: several, separated by commas, while it is rotated; a sub-account's as `AC…:token`.
    pub twilio_tokens: Vec<String>,
    /// `VAPI_SERVER_SECRET`: likewise.
    pub vapi_secrets: Vec<String>,
    /// `EDGE_ORIGIN_SECRET`: signs what is forwarded, and the stream token. The first of several, since the edge only signs.
    pub hop_secret: String,
}

impl Settings {
    /// Reads the settings, or names every fault without repeating a value.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let text = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut url = |name: &str, schemes: &[&str], default: Option<&str>| {
            let Some(value) = text(name).or_else(|| default.map(str::to_owned)) else {
                faults.push(format!("{name} is not set"));
                return String::new();
            };
            let authority = schemes.iter().find_map(|scheme| value.strip_prefix(scheme));
            if !authority.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#'])) {
                faults.push(format!("{name} must be {} and a host, without a query", schemes.join(" or ")));
            }
            value.trim_end_matches('/').to_owned()
        };
        let origin_url = url("ORIGIN_URL", &["https://", "http://"], None);
        let media_url = url("MEDIA_URL", &["wss://"], None);
        let edge_url = text("EDGE_URL").map(|_| url("EDGE_URL", &["https://"], None));
        let vapi_api_url = url("VAPI_API_URL", &["https://", "http://"], Some(VAPI_API_URL));

        let mut secrets = |name: &str| {
            let list = text(name).unwrap_or_default();
            let list: Vec<String> =
                list.split(',').map(str::trim).filter(|secret| !secret.is_empty()).map(str::to_owned).collect();
            if list.is_empty() {
                faults.push(format!("{name} is not set"));
            }
            list
        };
        let twilio_tokens = secrets("TWILIO_AUTH_TOKEN");
        let vapi_secrets = secrets("VAPI_SERVER_SECRET");
        let hop_secret = secrets("EDGE_ORIGIN_SECRET").into_iter().next().unwrap_or_default();

        if faults.is_empty() {
            Ok(Self { origin_url, media_url, edge_url, vapi_api_url, twilio_tokens, vapi_secrets, hop_secret })
        } else {
            Err(faults)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        let value = match name {
            "ORIGIN_URL" => "http://127.0.0.1:8080/",
            "MEDIA_URL" => "wss://origin.example/media-stream",
            "EDGE_URL" => "https://edge.example",
            "TWILIO_AUTH_TOKEN" => "next, current,",
            "VAPI_SERVER_SECRET" => "vapi-secret",
            "EDGE_ORIGIN_SECRET" => "hop-secret, the-one-before",
            _ => return None,
        };
        Some(value.to_owned())
    }

    pub(crate) fn settings() -> Settings {
        Settings::read(variable).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    #[test]
    fn a_complete_set() {
        let settings = settings();
        assert_eq!(settings.origin_url, "http://127.0.0.1:8080");
        assert_eq!(settings.twilio_tokens, ["next", "current"]);
        assert_eq!(settings.hop_secret, "hop-secret");
        assert_eq!(settings.vapi_api_url, "https://api.vapi.ai");
        let without_edge = Settings::read(|name| variable(name).filter(|_| name != "EDGE_URL"));
        assert!(without_edge.is_ok_and(|settings| settings.edge_url.is_none()));
    }

    #[test]
    fn every_fault_is_named_and_no_value_is_repeated() {
        let faults = Settings::read(|name| match name {
            "ORIGIN_URL" => Some("origin.example".to_owned()),
            "MEDIA_URL" => Some("ws://origin.example/media-stream".to_owned()),
            "EDGE_URL" => Some("https:///x".to_owned()),
            "TWILIO_AUTH_TOKEN" => Some(" , ".to_owned()),
            _ => None,
        })
        .err()
        .unwrap_or_default();
        assert_eq!(
            faults,
            [
                "ORIGIN_URL must be https:// or http:// and a host, without a query",
                "MEDIA_URL must be wss:// and a host, without a query",
                "EDGE_URL must be https:// and a host, without a query",
                "TWILIO_AUTH_TOKEN is not set",
                "VAPI_SERVER_SECRET is not set",
                "EDGE_ORIGIN_SECRET is not set",
            ]
        );
    }
}
