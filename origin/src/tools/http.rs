//! Tools that a customer's server runs: one signed request, and what may be asked of whom.

use std::time::Duration;

use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use shared::hop::{self, SignedRequest};

use super::ToolError;
use super::address::{NotPublic, PublicOnly, is_private_literal};
use crate::answering::unix_now;

/// What is read of an answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// What the model gets of it: about 4,000 tokens, of the 28,000 that the smaller models hold in all.
const MAX_RESULT_BYTES: usize = 16 * 1024;
/// How long the connection to a tool's server may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How often a server may send us on.
const MAX_REDIRECTS: u32 = 3;
/// The name of the run for servers that know this header and not ours.
const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// The way to tools' servers.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    allow_private: bool,
}

/// A request to a tool's server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) url: &'a str,
    pub(super) secret: &'a SecretString,
    /// The run's name, equal when it is repeated.
    pub(super) delivery: &'a str,
    pub(super) body: &'a str,
    pub(super) tool_call_id: &'a str,
    /// How long it may take, all in all.
    pub(super) limit: Duration,
}

impl Client {
    /// A client that, unless allowed, connects to public addresses only.
    pub fn new(allow_private: bool) -> reqwest::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            // Followed here, where every step is checked and signed.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if !allow_private {
            builder = builder.dns_resolver(std::sync::Arc::new(PublicOnly));
        }
        Ok(Self { http: builder.build()?, allow_private })
    }

    /// Whether this may be a tool's target, as far as can be told without resolving its name.
    pub fn permits(&self, url: &Url) -> bool {
        matches!(url.scheme(), "http" | "https") && (self.allow_private || !is_private_literal(url))
    }

    pub(super) async fn call(&self, request: &Request<'_>) -> Result<String, ToolError> {
        let limited = tokio::time::timeout(request.limit, self.call_unlimited(request)).await;
        limited.unwrap_or(Err(ToolError::Failed(None)))
    }

    async fn call_unlimited(&self, request: &Request<'_>) -> Result<String, ToolError> {
        let mut url: Url = request.url.parse().map_err(|_| ToolError::ForbiddenTarget)?;
        let mut redirects = 0;
        let mut response = loop {
            let response = self.send(&url, request).await?;
            let Some(next) = redirect(&url, &response) else { break response };
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(ToolError::Failed(None));
            }
            url = next;
        };
        if !response.status().is_success() {
            return Err(ToolError::Failed(None));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            answer.extend_from_slice(&chunk);
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(ToolError::TooLarge);
            }
        }
        read_answer(&answer, request.tool_call_id)
    }

    async fn send(&self, url: &Url, request: &Request<'_>) -> Result<Response, ToolError> {
        if !self.permits(url) {
            return Err(ToolError::ForbiddenTarget);
        }
        let path_and_query =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let signed = SignedRequest { method: "POST", path_and_query: &path_and_query, body: request.body.as_bytes() };
        let signature = hop::sign(request.secret.expose_secret(), unix_now(), signed);
        self.http
            .post(url.clone())
            .header("content-type", "application/json")
            .header(hop::SIGNATURE_HEADER, signature)
            .header(hop::DELIVERY_HEADER, request.delivery)
            .header(IDEMPOTENCY_HEADER, request.delivery)
            .body(request.body.to_owned())
            .send()
            .await
            .map_err(failed)
    }
}

/// Where a server sends us on to. The redirects that drop the body (301, 302, 303) are no answer, and one from https to
/// http is none either.
fn redirect(from: &Url, response: &Response) -> Option<Url> {
    if !matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return None;
    }
    let to = from.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    (to.scheme() == "https" || from.scheme() == "http").then_some(to)
}

fn failed(error: reqwest::Error) -> ToolError {
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        if inner.is::<NotPublic>() {
            return ToolError::ForbiddenTarget;
        }
        cause = inner.source();
    }
    if error.is_connect() { ToolError::Unreachable(error) } else { ToolError::Failed(Some(error)) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    results: Vec<ToolResult>,
    /// Fails every call of the message.
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolResult {
    tool_call_id: Option<String>,
    result: Option<Value>,
    error: Option<Value>,
}

fn read_answer(body: &[u8], tool_call_id: &str) -> Result<String, ToolError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| ToolError::Failed(None))?;
    let own = answer.results.into_iter().find(|result| result.tool_call_id.as_deref() == Some(tool_call_id));
    let (result, error) = own.map_or((None, None), |own| (own.result, own.error));
    match (result.map(text), answer.error.or(error).map(text)) {
        (_, Some(error)) if error.len() > MAX_RESULT_BYTES => Err(ToolError::TooLarge),
        (_, Some(error)) => Err(ToolError::Refused(error)),
        (Some(result), None) if result.len() > MAX_RESULT_BYTES => Err(ToolError::TooLarge),
        (Some(result), None) => Ok(result),
        (None, None) => Err(ToolError::Failed(None)),
    }
}

/// Vapi asks for a text, but its documentation shows other values as well.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<String, ToolError> {
        read_answer(body.to_string().as_bytes(), "c1")
    }

    #[test]
    fn the_answer_is_vapis() {
        let two = json!({"results": [{"toolCallId": "c0", "result": "no"}, {"toolCallId": "c1", "result": "yes"}]});
        assert_eq!(read(&two).unwrap(), "yes");
        assert_eq!(read(&json!({"results": [{"toolCallId": "c1", "result": {"a": 1}}]})).unwrap(), r#"{"a":1}"#);
        for refused in [json!({"results": [{"toolCallId": "c1", "error": "full"}]}), json!({"error": "full"})] {
            assert!(matches!(read(&refused), Err(ToolError::Refused(error)) if error == "full"));
        }
        for bad in [json!({"results": []}), json!({"results": [{"toolCallId": "c1"}]}), json!({}), json!("x")] {
            assert!(matches!(read(&bad), Err(ToolError::Failed(None))));
        }
    }

    /// A server that sends everybody on from `/to?<url>`, and says at `/tools` how the request was signed.
    async fn server() -> std::net::SocketAddr {
        use axum::http::{HeaderMap, Uri};
        use axum::response::IntoResponse as _;
        use axum::routing::post;

        let to = async |uri: Uri| {
            let location = uri.query().unwrap_or_default().to_owned();
            (axum::http::StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)])
        };
        let tools = async |headers: HeaderMap, body: axum::body::Bytes| {
            let signed = SignedRequest { method: "POST", path_and_query: "/tools", body: &body };
            let header = headers[hop::SIGNATURE_HEADER].to_str().unwrap();
            let genuine = hop::verify("secret", unix_now(), header, signed).is_ok();
            axum::Json(json!({"results": [{"toolCallId": "c1", "result": genuine}]})).into_response()
        };
        let router = axum::Router::new().route("/to", post(to)).route("/tools", post(tools));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn every_step_of_a_redirect_is_checked_and_signed() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = server().await;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(std::sync::Arc::new(PublicOnly))
            // Stands for a public server: this name is not asked of the resolver.
            .resolve("tools.example", address)
            .build()
            .unwrap();
        let client = Client { http, allow_private: false };
        let own = format!("http://tools.example:{}", address.port());
        let secret = SecretString::from("secret");
        let call = async |url: &str| {
            let (delivery, body, tool_call_id, limit) = ("d", "{}", "c1", Duration::from_secs(5));
            client.call(&Request { url, secret: &secret, delivery, body, tool_call_id, limit }).await
        };
        assert_eq!(call(&format!("{own}/to?/tools")).await.unwrap(), "true");
        assert_eq!(call(&format!("{own}/to?{own}/to?/tools")).await.unwrap(), "true", "twice");
        for private in [format!("http://{address}/tools"), format!("http://localhost:{}/tools", address.port())] {
            for url in [private.clone(), format!("{own}/to?{private}")] {
                assert!(matches!(call(&url).await, Err(ToolError::ForbiddenTarget)), "{url}");
            }
        }
        let endless = format!("{own}/to?/to?/to?/to?/to?/tools");
        assert!(matches!(call(&endless).await, Err(ToolError::Failed(None))));
        let nobody = "http://tools.example:1/tools";
        assert!(matches!(call(nobody).await, Err(ToolError::Unreachable(_) | ToolError::Failed(_))));
    }

    #[test]
    fn a_model_reads_no_more_than_so_much() {
        let of = |length: usize| json!({"results": [{"toolCallId": "c1", "result": "x".repeat(length)}]});
        assert_eq!(read(&of(MAX_RESULT_BYTES)).unwrap().len(), MAX_RESULT_BYTES);
        assert!(matches!(read(&of(MAX_RESULT_BYTES + 1)), Err(ToolError::TooLarge)));
    }
}
