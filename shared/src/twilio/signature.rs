//! `X-Twilio-Signature`: whether a request comes from Twilio and is unchanged.
//!
//! The signed text is the public URL followed by each parameter's name and value, sorted by name; a repeated name
//! counts with its distinct values, sorted. JSON bodies are covered by `bodySHA256` in the URL's query instead.
//! Twilio's helper libraries accept the URL with and without its port, and so do we: its back end is not consistent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::form::Form;
use crate::AccountSid;
use crate::hmac::{Algorithm, equal, from_hex, mac};

/// The header that holds the signature.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";
/// The header that says which shared key and algorithm signed (public beta; absent: HMAC-SHA1 with the auth token).
pub const SETTINGS_HEADER: &str = "x-twilio-webhooks-signature-settings";

/// What a request's body contributes to its signature.
#[derive(Clone, Copy, Debug)]
pub enum Signed<'a> {
    /// The parameters of a form.
    Form(&'a Form<'a>),
    /// A raw body, whose hash stands in the URL's query.
    Body(&'a [u8]),
    /// Nothing: a GET or a WebSocket upgrade.
    Nothing,
}

/// A request as Twilio signed it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The public URL that Twilio requested, with its query.
    pub url: &'a str,
    /// What else is signed.
    pub signed: Signed<'a>,
    /// Value of [`SIGNATURE_HEADER`].
    pub signature: &'a str,
    /// Value of [`SETTINGS_HEADER`].
    pub settings: Option<&'a str>,
}

/// Whether one of the secrets signed this request. Several are valid while a token is rotated.
///
/// A secret is an auth token, or `AC…:token` for that of a sub-account, which proves only what names that account: in a
/// form its `AccountSid`. A JSON body names no account that counts before it is proven, so only bare tokens do there.
pub fn verify<S: AsRef<str>>(secrets: &[S], request: Request<'_>) -> bool {
    let Some(algorithm) = algorithm(request.settings) else { return false };
    let Ok(presented) = STANDARD.decode(request.signature) else { return false };
    let url = request.url.split('#').next().unwrap_or_default();

    let mut parameters = String::new();
    let mut account = None;
    match request.signed {
        Signed::Form(form) => {
            append_sorted(form, &mut parameters);
            account = form.get("AccountSid");
        }
        Signed::Body(body) if !body_hash_matches(url, body) => return false,
        Signed::Body(_) | Signed::Nothing => {}
    }

    let urls = candidate_urls(url);
    secrets.iter().filter_map(|secret| token(secret.as_ref(), account)).any(|token| {
        urls.iter().any(|url| {
            let computed = mac(algorithm, token.as_bytes(), &[url.as_bytes(), parameters.as_bytes()]);
            equal(&computed, &presented)
        })
    })
}

/// The auth token in a secret, if it may prove a webhook of this account.
fn token<'a>(secret: &'a str, account: Option<&str>) -> Option<&'a str> {
    match secret.split_once(':') {
        Some((owner, token)) if owner.parse::<AccountSid>().is_ok() => {
            (account == Some(owner) && !token.is_empty()).then_some(token)
        }
        _ => Some(secret),
    }
}

fn algorithm(settings: Option<&str>) -> Option<Algorithm> {
    let named =
        settings.and_then(|settings| settings.split(',').find_map(|setting| setting.trim().strip_prefix("algorithm=")));
    match named {
        None | Some("HMAC_SHA1") => Some(Algorithm::Sha1),
        Some("HMAC_SHA256") => Some(Algorithm::Sha256),
        Some(_) => None,
    }
}

fn append_sorted(form: &Form<'_>, text: &mut String) {
    let mut pairs: Vec<_> = form.pairs().collect();
    pairs.sort_unstable();
    pairs.dedup();
    for (name, value) in pairs {
        text.push_str(name);
        text.push_str(value);
    }
}

fn body_hash_matches(url: &str, body: &[u8]) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("bodySHA256="))
        .and_then(from_hex)
        .is_some_and(|expected| equal(&Sha256::digest(body), &expected))
}

/// The URL as it is, then with its port removed or the scheme's default port added.
fn candidate_urls(url: &str) -> Vec<String> {
    let mut urls = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return urls };
    let split = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(split);
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            urls.push(format!("{scheme}://{host}{path}"));
        }
        _ => {
            let default = if matches!(scheme, "https" | "wss") { 443 } else { 80 };
            urls.push(format!("{scheme}://{authority}:{default}{path}"));
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!(
            candidate_urls("https://a.example/x?y=1:2"),
            ["https://a.example/x?y=1:2", "https://a.example:443/x?y=1:2"]
        );
        assert_eq!(candidate_urls("wss://a.example:8443/x"), ["wss://a.example:8443/x", "wss://a.example/x"]);
        assert_eq!(candidate_urls("nonsense"), ["nonsense"]);
    }

    #[test]
    fn a_token_of_an_account_proves_only_what_names_it() {
        let form = |account| Form::from_iter([("AccountSid", account), ("CallSid", "CA01")]);
        let accepts = |secrets: &[&str], form: &Form<'_>, signed_with: &str| {
            let mut text = "https://a.example/x".to_owned();
            append_sorted(form, &mut text);
            let signature = STANDARD.encode(mac(Algorithm::Sha1, signed_with.as_bytes(), &[text.as_bytes()]));
            let signed = Signed::Form(form);
            verify(secrets, Request { url: "https://a.example/x", signed, signature: &signature, settings: None })
        };
        let secrets = ["main", "AC01:first", "AC02:second", "AC02:next", "AC03:"];
        for (account, token, expected) in [
            ("AC01", "first", true),
            ("AC02", "second", true),
            ("AC02", "next", true),
            ("AC01", "second", false),
            ("AC02", "first", false),
            ("AC09", "first", false),
            // A bare token is whichever account's.
            ("AC01", "main", true),
            ("AC09", "main", true),
            ("AC01", "AC01:first", false),
            ("AC03", "", false),
            ("", "first", false),
        ] {
            assert_eq!(accepts(&secrets, &form(account), token), expected, "{account} {token}");
        }
        assert!(!accepts(&secrets, &Form::from_iter([("CallSid", "CA01")]), "first"));
        // No account, so a token that happens to hold a colon.
        assert!(accepts(&["a:b"], &form("AC01"), "a:b"));
    }

    #[test]
    fn unknown_algorithm_is_refused() {
        assert_eq!(algorithm(Some("key=k,algorithm=HMAC_MD5")), None);
        assert_eq!(algorithm(Some("key=k")), Some(Algorithm::Sha1));
        assert_eq!(algorithm(Some("key=k,algorithm=HMAC_SHA256")), Some(Algorithm::Sha256));
    }
}
