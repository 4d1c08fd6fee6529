//! Twilio's webhooks: incoming calls, ended streams, status callbacks.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use shared::twilio::answer::{self, Back, path};
use shared::twilio::form::Form;
use shared::twilio::webhook::{CallStatus, CallWebhook, IDEMPOTENCY_HEADER, delivery_id};
use tokio::time::timeout;

use super::invalid_signature;
use super::sender::{Received, Sender};
use crate::answering::{self, Incoming};
use crate::http::extract::require_media_type;
use crate::http::problem::Problem;
use crate::inbox::{self, Delivery, Source, State as Became};
use crate::store::StoreError;
use crate::{App, steps, store, twilio_calls};

/// A caller hears nothing until the answer: it comes within 5 s, though a database that hangs may take longer. The edge is
/// less patient; this is for calls that come straight from Twilio. Vapi has its 3 s within it.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// A verified webhook about a call.
struct Webhook<'a> {
    form: Form<'a>,
    facts: CallWebhook,
    sender: Sender,
    received: &'a Received,
}

fn verify<'a>(app: &App, received: &'a Received) -> Result<Webhook<'a>, Problem> {
    require_media_type(&received.headers, &["application/x-www-form-urlencoded"])?;
    let form =
        Form::parse(&received.body).map_err(|error| Problem::invalid(format!("The body is not valid: {error}.")))?;
    let sender = received.twilio_sender(app, &form).ok_or_else(|| invalid_signature(StatusCode::FORBIDDEN))?;
    let facts =
        CallWebhook::from_form(&form).map_err(|error| Problem::invalid(format!("The body is not valid: {error}.")))?;
    Ok(Webhook { form, facts, sender, received })
}

impl Webhook<'_> {
    /// What the sender repeats.
    fn delivery(&self) -> String {
        let computed = || delivery_id(self.received.uri.path(), &self.form, self.received.header(IDEMPOTENCY_HEADER));
        self.received.delivery(self.sender, computed)
    }

    /// The same, if Twilio itself names this very request: without its token, two questions about one call may look
    /// alike.
    fn named(&self) -> Option<String> {
        let id = self.delivery();
        (id != delivery_id(self.received.uri.path(), &self.form, None)).then_some(id)
    }

    /// Opens it as an event that takes effect once.
    async fn open<'d>(&'d self, app: &App, id: &'d str) -> Result<Option<inbox::Entry<'d>>, StoreError> {
        let delivery = Delivery {
            id,
            source: Source::Twilio,
            kind: self.received.uri.path(),
            body: &self.received.body,
            call_sid: Some(&self.facts.call_sid),
            vapi_call_id: None,
            changes_record: self.received.uri.path() == path::STATUS,
        };
        inbox::open(app, delivery).await
    }

    /// Where Twilio comes back to: whoever it asked.
    fn base(&self, app: &App) -> String {
        match self.sender {
            Sender::Edge => app.config.edge_base(),
            Sender::Provider => app.config.origin_base(),
        }
    }
}

/// `POST /twilio/voice`
pub async fn voice(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let webhook = verify(&app, &received)?;
    let base = webhook.base(&app);
    let attempt = answer::attempt(received.uri.query().unwrap_or_default());
    let delivery = webhook.named();
    let incoming = Incoming { webhook: &webhook.facts, base: &base, attempt, delivery: delivery.as_deref() };
    Ok(twiml_or_hold(Box::pin(answering::voice(&app, &incoming)), &incoming, path::VOICE).await)
}

/// `POST /twilio/expected`, from the edge alone: a call that it bridges is on its way.
pub async fn expected(State(app): State<Arc<App>>, received: Received) -> Result<StatusCode, Problem> {
    let webhook = verify(&app, &received)?;
    if webhook.sender != Sender::Edge {
        return Err(invalid_signature(StatusCode::FORBIDDEN));
    }
    answering::expected::expected(&app, &webhook.facts).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /twilio/resume`
pub async fn resume(State(app): State<Arc<App>>, received: Received) -> Result<Response, Problem> {
    let webhook = verify(&app, &received)?;
    let base = webhook.base(&app);
    let attempt = answer::attempt(received.uri.query().unwrap_or_default());
    let delivery = webhook.named();
    let incoming = Incoming { webhook: &webhook.facts, base: &base, attempt, delivery: delivery.as_deref() };
    let back = Back::read(received.uri.query().unwrap_or_default(), webhook.facts.dialled);
    let answering = async {
        match steps::answer(&app, &incoming, back).await? {
            Some(twiml) => Ok(twiml),
            None => answering::resume(&app, &incoming).await,
        }
    };
    let again = back.map_or_else(|| path::RESUME.to_owned(), Back::path);
    Ok(twiml_or_hold(Box::pin(answering), &incoming, &again).await)
}

/// `POST /twilio/status`
pub async fn status(State(app): State<Arc<App>>, received: Received) -> Result<StatusCode, Problem> {
    let webhook = verify(&app, &received)?;
    let is_over = matches!(webhook.facts.status, CallStatus::Over(_));
    if is_over {
        app.endings.tell(&webhook.facts.call_sid);
        app.prepared.forget(&webhook.facts.call_sid);
    }
    let id = webhook.delivery();
    if let Some(mut entry) = webhook.open(&app, &id).await? {
        let became = twilio_calls::note_status(&mut entry, &webhook.form, &webhook.facts).await?;
        entry.close(became).await?;
    }
    if is_over {
        // The record says so now.
        app.plans.forget(&webhook.facts.call_sid);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /twilio/stream-status`
pub async fn stream_status(State(app): State<Arc<App>>, received: Received) -> Result<StatusCode, Problem> {
    let webhook = verify(&app, &received)?;
    let id = webhook.delivery();
    let Some(mut entry) = webhook.open(&app, &id).await? else { return Ok(StatusCode::NO_CONTENT) };
    let call_sid = &webhook.facts.call_sid;
    let known = store::calls::by_call_sid(&mut entry, call_sid).await?.is_some();
    let event = webhook.form.get("StreamEvent").unwrap_or("unknown");
    tracing::debug!(%call_sid, event, "media stream status");
    // The only place where Twilio says why a stream could not be opened.
    if let Some(reason) = webhook.form.get("StreamError") {
        tracing::error!(%call_sid, event, reason, "Twilio reports a fault of the media stream");
    }
    entry.close(if known { Became::Applied } else { Became::Unknown }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// While the database is away or hangs the caller is asked to wait: Twilio must get TwiML. Whatever is cut off here is as
/// if the process had ended there, and asking again goes on from it.
async fn twiml_or_hold(
    answering: impl Future<Output = Result<String, StoreError>>,
    incoming: &Incoming<'_>,
    path: &str,
) -> Response {
    let call_sid = &incoming.webhook.call_sid;
    let hold = || answer::hold(incoming.base, path, incoming.attempt);
    let twiml = match timeout(ANSWER_LIMIT, answering).await {
        Ok(Ok(twiml)) => twiml,
        Ok(Err(error)) => {
            tracing::error!(%call_sid, error = &error as &dyn std::error::Error, "the call is put on hold");
            hold()
        }
        Err(_) => {
            tracing::error!(%call_sid, limit_s = ANSWER_LIMIT.as_secs(), "no answer in time: the call is put on hold");
            hold()
        }
    };
    ([(CONTENT_TYPE, "text/xml; charset=utf-8")], twiml).into_response()
}
