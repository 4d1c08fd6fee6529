//! Who sent a webhook.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, Uri};
use shared::hop::{self, SignedRequest};
use shared::twilio::form::Form;
use shared::twilio::signature::{self, Signed};
use shared::vapi::auth::Credentials;

use crate::App;
use crate::answering::unix_now;
use crate::config::exposed;
use crate::http::extract;
use crate::http::problem::Problem;

/// A verified sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Our edge, which has verified the provider.
    Edge,
    /// The provider itself.
    Provider,
}

/// The request as it came in.
#[derive(Debug)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its raw body.
    pub body: Bytes,
}

impl FromRequest<Arc<App>> for Received {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
        let body = extract::body(request, app).await?;
        Ok(Self { method, uri, headers, body })
    }
}

impl Received {
    /// A header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The webhook's idempotency key: the edge's word for it, or what the provider repeats.
    pub fn delivery(&self, sender: Sender, computed: impl FnOnce() -> String) -> String {
        let told = self.header(hop::DELIVERY_HEADER).filter(|id| sender == Sender::Edge && !id.is_empty());
        told.map_or_else(computed, |id| hop::delivery(id.to_owned()))
    }

    fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |text| text.as_str())
    }

    fn is_from_edge(&self, app: &App) -> bool {
        let Some(header) = self.header(hop::SIGNATURE_HEADER) else { return false };
        let request =
            SignedRequest { method: self.method.as_str(), path_and_query: self.path_and_query(), body: &self.body };
        let now = unix_now();
        app.config.edge_origin_secret.verify(|secret| hop::verify(secret, now, header, request)).is_ok()
    }

    /// Whether a Twilio webhook is genuine, and by whose word.
    pub fn twilio_sender(&self, app: &App, form: &Form<'_>) -> Option<Sender> {
        if self.is_from_edge(app) {
            return Some(Sender::Edge);
        }
        let config = app.config.twilio.as_ref()?;
        let url = format!("{}{}", app.config.origin_base(), self.path_and_query());
        let request = signature::Request {
            url: &url,
            signed: Signed::Form(form),
            signature: self.header(signature::SIGNATURE_HEADER)?,
            settings: self.header(signature::SETTINGS_HEADER),
        };
        signature::verify(&exposed(&config.auth_tokens), request).then_some(Sender::Provider)
    }

    /// Whether a Vapi message is genuine, and by whose word.
    pub fn vapi_sender(&self, app: &App) -> Option<Sender> {
        if self.is_from_edge(app) {
            return Some(Sender::Edge);
        }
        let config = app.config.vapi.as_ref()?;
        let credentials = Credentials {
            secret: self.header("x-vapi-secret"),
            authorization: self.header("authorization"),
            signature: self.header("x-signature"),
            timestamp: self.header("x-timestamp"),
        };
        shared::vapi::auth::verify(&exposed(&config.server_secrets), unix_now(), credentials, &self.body)
            .then_some(Sender::Provider)
    }
}
