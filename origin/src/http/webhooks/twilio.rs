//! Twilio's webhooks: incoming calls, ended streams, status callbacks.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use shared::SystemType;
use shared::twilio::answer::{self, path};
use shared::twilio::form::Form;
use shared::twilio::webhook::{CallOutcome, CallStatus, CallWebhook};
use time::OffsetDateTime;

use super::invalid_signature;
use super::sender::{Received, Sender};
use crate::answering::{self, Incoming};
use crate::http::problem::Problem;
use crate::store::StoreError;
use crate::{App, store};

/// A verified webhook about a call.
struct Webhook<'a> {
    form: Form<'a>,
    facts: CallWebhook,
    sender: Sender,
}

fn verify<'a>(app: &App, received: Received<'a>) -> Result<Webhook<'a>, Problem> {
    let form =
        Form::parse(received.body).map_err(|error| Problem::invalid(format!("The body is not valid: {error}.")))?;
    let sender = received.twilio_sender(app, &form).ok_or_else(|| invalid_signature(StatusCode::FORBIDDEN))?;
    let facts =
        CallWebhook::from_form(&form).map_err(|error| Problem::invalid(format!("The body is not valid: {error}.")))?;
    Ok(Webhook { form, facts, sender })
}

impl Webhook<'_> {
    /// Where Twilio comes back to: whoever it asked.
    fn base(&self, app: &App) -> String {
        match self.sender {
            Sender::Edge => app.config.edge_base(),
            Sender::Provider => app.config.origin_base(),
        }
    }
}

/// `POST /twilio/voice`
pub async fn voice(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let webhook = verify(&app, Received { method: &method, uri: &uri, headers: &headers, body: &body })?;
    let base = webhook.base(&app);
    let answered = answering::voice(&app, &Incoming { webhook: &webhook.facts, base: &base }).await;
    Ok(twiml_or_hold(answered, &webhook, &base, path::VOICE, &uri))
}

/// `POST /twilio/resume`
pub async fn resume(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let webhook = verify(&app, Received { method: &method, uri: &uri, headers: &headers, body: &body })?;
    let base = webhook.base(&app);
    let answered = answering::resume(&app, &Incoming { webhook: &webhook.facts, base: &base }).await;
    Ok(twiml_or_hold(answered, &webhook, &base, path::RESUME, &uri))
}

/// `POST /twilio/status`
pub async fn status(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let webhook = verify(&app, Received { method: &method, uri: &uri, headers: &headers, body: &body })?;
    note_status(&app, &webhook.facts).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /twilio/stream-status`
pub async fn stream_status(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let webhook = verify(&app, Received { method: &method, uri: &uri, headers: &headers, body: &body })?;
    let call_sid = &webhook.facts.call_sid;
    let event = webhook.form.get("StreamEvent").unwrap_or("unknown");
    tracing::debug!(%call_sid, event, "media stream status");
    // The only place where Twilio says why a stream could not be opened.
    if let Some(reason) = webhook.form.get("StreamError") {
        tracing::error!(%call_sid, event, reason, "Twilio reports a fault of the media stream");
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn note_status(app: &App, facts: &CallWebhook) -> Result<(), StoreError> {
    let mut conn = app.db.acquire().await?;
    let Some(call) = store::calls::by_call_sid(&mut conn, &facts.call_sid).await? else { return Ok(()) };
    let now = OffsetDateTime::now_utc();
    match facts.status {
        CallStatus::InProgress => store::calls::answered(&mut conn, call.id, now).await?,
        // Vapi reports its own calls, with a better reason.
        CallStatus::Over(CallOutcome::Completed) if call.system_type == SystemType::Vapi => {}
        CallStatus::Over(outcome) => {
            let reason = match outcome {
                // Had the agent ended it, that would stand in the record already.
                CallOutcome::Completed => "caller_hung_up",
                other => other.as_str(),
            };
            store::calls::end(&mut conn, call.id, now, reason).await?;
        }
        CallStatus::Ringing | CallStatus::Other => {}
    }
    Ok(())
}

/// While the database is away the caller is asked to wait: Twilio must get TwiML.
fn twiml_or_hold(
    answered: Result<String, StoreError>,
    webhook: &Webhook<'_>,
    base: &str,
    path: &str,
    uri: &Uri,
) -> Response {
    let twiml = answered.unwrap_or_else(|error| {
        let call_sid = &webhook.facts.call_sid;
        tracing::error!(%call_sid, error = &error as &dyn std::error::Error, "the call is put on hold");
        answer::hold(base, path, answer::attempt(uri.query().unwrap_or_default()))
    });
    ([(CONTENT_TYPE, "text/xml; charset=utf-8")], twiml).into_response()
}
