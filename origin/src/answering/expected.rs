//! A call that is on its way: the edge has answered it and says so, before Twilio opens the stream.
//!
//! The call is recorded with what the stream does not know: who calls, and which number. Its session at OpenAI is opened
//! meanwhile. When the stream was quicker, only the record is filled.

use std::sync::Arc;

use shared::decision::{VoiceDecision, decide_voice};
use shared::route::Lookup;
use shared::twilio::webhook::CallWebhook;
use shared::{CallSid, E164, SystemType};
use tokio::time::{Instant, sleep};

use super::{Incoming, begin, find};
use crate::App;
use crate::bridge::prepared::{NoPlace, WAIT_LIMIT};
use crate::bridge::session;
use crate::bridge::sessions::{Occasion, Opener, Terms};
use crate::store::agents::Agent;
use crate::store::calls::{Call, CallStatus};
use crate::store::{self, StoreError};
use crate::telemetry::OutcomeLabels;

/// Takes note of a call. Nothing is done for one that the database would not have bridged.
pub async fn expected(app: &Arc<App>, webhook: &CallWebhook) -> Result<(), StoreError> {
    let known = match &webhook.to {
        Some(number) => find(app, number, &webhook.call_sid).await?,
        None => None,
    };
    let decision = decide_voice(Lookup::Truth(known.as_ref().map(|known| &known.route)));
    let (VoiceDecision::Bridge { .. }, Some(known)) = (decision, known) else {
        count(app, "not_bridged");
        return Ok(());
    };
    let incoming = Incoming { webhook, base: "", attempt: 1, delivery: None };
    let call = begin(app, &incoming, &known, SystemType::OpenaiRealtime).await?;
    let mut conn = app.db.acquire().await?;
    let (from, to) = (webhook.from.as_ref().map(E164::as_str), webhook.to.as_ref().map(E164::as_str));
    store::calls::set_parties(&mut conn, call.id, Some(known.number.id), from, to).await?;
    let awaits_stream = call.status == CallStatus::Ringing
        && !app.shutdown.is_cancelled()
        && app.live.has_room(call.id, app.config.max_live_calls);
    if awaits_stream && let Some(terms) = terms(app, &mut conn, &known.agent).await? {
        prepare(app, &call, webhook.call_sid.clone(), terms);
    }
    Ok(())
}

/// Opens the call's session, which waits for its stream, unless that was done or the stream is there.
fn prepare(app: &Arc<App>, call: &Call, call_sid: CallSid, terms: Terms) {
    // A stream is live before it claims: one that is not yet will find the place.
    let place = match app.prepared.place(call_sid, terms.clone(), || app.live.is_live(call.id)) {
        Ok(place) => place,
        Err(NoPlace::Known) => return,
        Err(NoPlace::Full) => return count(app, "full"),
    };
    let (tasks, app) = (&app.tasks, Arc::clone(app));
    tasks.spawn(async move {
        let opener = Opener { config: app.config.openai.as_ref(), terms: &terms };
        let opening = Box::pin(opener.open(Occasion::Start, Instant::now()));
        count(&app, place.keep(opening, sleep(WAIT_LIMIT), &app.shutdown).await.as_str());
    });
}

fn count(app: &App, outcome: &'static str) {
    app.metrics.prepared_sessions.get_or_create(&OutcomeLabels { outcome }).inc();
}

/// What the session of a new call is opened with; `None`: agent or origin are not configured for it.
async fn terms(app: &App, conn: &mut sqlx::PgConnection, agent: &Agent) -> Result<Option<Terms>, StoreError> {
    let (Some(openai), Some(settings)) = (&app.config.openai, &agent.realtime) else { return Ok(None) };
    let tools = store::tools::of_agent(conn, agent.id).await?;
    let first_ask = session::first_ask(agent.greeting.as_deref(), &settings.call);
    Ok(Some(session::terms(&agent.instructions, settings, &tools, &openai.model, first_ask.as_ref())))
}
