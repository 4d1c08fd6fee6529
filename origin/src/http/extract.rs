//! What handlers take out of a request. Whatever does not fit is a [`Problem`] that says why.

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
    let mut unknown = None;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_ignored::deserialize(&mut reader, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    let read = read.and_then(|value| reader.end().map(|()| value));
    let (value, unknown) = match read {
        Ok(value) => (value, unknown),
        Err(error) => serde_json::from_slice(body)
            .ok()
            .and_then(|value| from_value(value).ok())
            .ok_or_else(|| Problem::invalid(format!("The body is not valid: {error}.")))?,
    };
    if let Some(path) = unknown {
        return Err(Problem::invalid(format!("The body is not valid: unknown field `{path}`.")));
    }
    if holds_nul(body) {
        return Err(Problem::invalid("The body is not valid: a text holds a NUL character."));
    }
    Ok(value)
}

/// Reads a value in which whole numbers may be written as 2.0, which in JSON is the same as 2. Tells what is not known.
pub fn from_value<T: DeserializeOwned>(mut value: Value) -> serde_json::Result<(T, Option<String>)> {
    write_whole(&mut value);
    let mut unknown = None;
    let read = serde_ignored::deserialize(value, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    })?;
    Ok((read, unknown))
}

fn write_whole(value: &mut Value) {
    /// Beyond this not every whole number can be written as a float.
    const MOST: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Array(items) => items.iter_mut().for_each(write_whole),
        Value::Object(members) => members.values_mut().for_each(write_whole),
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= MOST);
            if let Some(whole) = whole.and_then(|float| format!("{float:.0}").parse::<i64>().ok()) {
                *value = whole.into();
            }
        }
        _ => {}
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
        let read = |text: &str| json::<HashMap<String, u8>>(text.as_bytes());
        assert_eq!(read(r#"{"a":2.0,"b":2e1,"c":-0.0}"#).unwrap(), [("a", 2), ("b", 20), ("c", 0)].map(own).into());
        for bad in [r#"{"a":2.5}"#, r#"{"a":256.0}"#, r#"{"a":1e300}"#, r#"{"a":2.0}}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    fn own((name, value): (&str, u8)) -> (String, u8) {
        (name.to_owned(), value)
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
