//! What handlers take out of a request. Whatever does not fit is a [`Problem`] that says why.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::App;
use crate::http::problem::{Code, Problem};

/// A JSON body. A field that its type does not know is refused, at whatever depth.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        require_media_type(request.headers(), &["application/json"])?;
        let body = body(request, app).await?;
        json(&body).map(Self)
    }
}

/// The body's bytes, as many as the route takes.
pub async fn body(request: Request, app: &Arc<App>) -> Result<Bytes, Problem> {
    Bytes::from_request(request, app).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(Code::BodyTooLarge, "The body is too large.")
        } else {
            Problem::invalid("The body could not be read.")
        }
    })
}

/// Reads a JSON object.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Serde would take a list for the members in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid("The body is not valid: it must be an object."));
    }
    let body = &*with_whole_numbers(body);
    let mut unknown = None;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_ignored::deserialize(&mut reader, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    let value = read
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Problem::invalid(format!("The body is not valid: {error}.")))?;
    if let Some(path) = unknown {
        return Err(Problem::invalid(format!("The body is not valid: unknown field `{path}`.")));
    }
    if holds_nul(body) {
        return Err(Problem::invalid("The body is not valid: a text holds a NUL character."));
    }
    Ok(value)
}

/// Writes 2.0 as 2: in JSON they are the same number, and serde takes only the second for a whole one. What is no JSON
/// stays so.
fn with_whole_numbers(body: &[u8]) -> Cow<'_, [u8]> {
    let mut whole: Option<Vec<u8>> = None;
    let (mut kept, mut at, mut in_text) = (0, 0, false);
    while let Some(&byte) = body.get(at) {
        match byte {
            b'\\' if in_text => at += 1,
            b'"' => in_text = !in_text,
            b'.' if !in_text => {
                let digits = body[..at].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
                let before = &body[..at - digits];
                let zeros = body[at + 1..].iter().take_while(|byte| **byte == b'0').count();
                let begins =
                    matches!(before.last(), None | Some(b'-' | b':' | b',' | b'[' | b' ' | b'\t' | b'\n' | b'\r'));
                let after = body.get(at + 1 + zeros);
                let ends = matches!(after, None | Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'));
                if digits > 0 && begins && zeros > 0 && ends {
                    whole.get_or_insert_default().extend(&body[kept..at]);
                    kept = at + 1 + zeros;
                }
            }
            _ => {}
        }
        at += 1;
    }
    match whole {
        Some(mut whole) => {
            whole.extend(&body[kept..]);
            whole.into()
        }
        None => body.into(),
    }
}

/// Whether a text in the JSON holds a NUL, which Postgres cannot keep.
fn holds_nul(body: &[u8]) -> bool {
    fn in_value(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(in_value),
            Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || in_value(value)),
            _ => false,
        }
    }
    // In JSON a NUL can only be written as an escape; what looks like one may be an escaped backslash.
    let looks_so = body.windows(6).any(|window| window == br"\u0000");
    looks_so && serde_json::from_slice(body).is_ok_and(|value| in_value(&value))
}

/// Refuses a request whose body is of another type; the first of `expected` is the one to recommend.
pub fn require_media_type(headers: &HeaderMap, expected: &[&str]) -> Result<(), Problem> {
    let is_it = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| expected.iter().any(|expected| essence.trim().eq_ignore_ascii_case(expected)));
    if is_it {
        return Ok(());
    }
    let expected = expected.first().copied().unwrap_or_default();
    Err(Problem::new(Code::UnsupportedMediaType, format!("Send Content-Type: {expected}.")))
}

/// The query.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, app).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::invalid(format!("The query is not valid: {}.", error.body_text()))),
        }
    }
}

/// The one id in the path. What is no id names nothing that exists: 404.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T: FromStr> FromRequestParts<Arc<App>> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let id = path.ok().and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(|| Problem::not_found("id"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        text: String,
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        let read = |text: &str| json::<HashMap<String, i8>>(text.as_bytes()).map(|read| read["a"]);
        for (text, number) in [(r#"{"a":2.0}"#, 2), (r#"{ "a" : -20.000 }"#, -20), (r#"{"\"1.0":1,"a":0.0}"#, 0)] {
            assert_eq!(read(text).unwrap(), number, "{text}");
        }
        for bad in [r#"{"a":2.5}"#, r#"{"a":256.0}"#, r#"{"a":2.}"#, r#"{"a":.0}"#, r#"{"a":1.0.0}"#, r#"{"a":+1.0}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let texts: HashMap<String, String> = json(br#"{"a":"[1.0]","b.0":"\\\"2.0, 3.0"}"#).unwrap();
        assert_eq!((texts["a"].as_str(), texts["b.0"].as_str()), ("[1.0]", r#"\"2.0, 3.0"#));
        assert!(json::<Outer>(br#"{"inner":{"text":"a"},"inner":{"text":"b"}}"#).is_err(), "a field twice");
    }

    #[test]
    fn unknown_fields_and_nul_are_refused_at_any_depth() {
        let read = |text: &str| json::<Outer>(text.as_bytes());
        assert_eq!(read(r#"{"inner":{"text":"C:\\u0000"}}"#).unwrap().inner.text, r"C:\u0000");
        for bad in [
            r#"{"inner":{"text":"a","more":1}}"#,
            r#"{"inner":{"text":"a"},"more":1}"#,
            r#"{"inner":{"text":"\u0000"}}"#,
            r#"{"inner":{"text":"a"}} x"#,
            r#"[{"text":"a"}]"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(json::<Value>(json!({ "a\0": 1 }).to_string().as_bytes()).is_err());
    }
}
