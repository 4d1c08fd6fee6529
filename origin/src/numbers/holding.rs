//! Taking over numbers that are at Twilio or Vapi already, giving them to agents, and giving them back.

use serde_json::json;
use shared::{AgentId, E164, NumberId, ProjectId};
use sqlx::{Connection as _, PgConnection};

use super::{NumberError, place_for, pointing};
use crate::App;
use crate::config::Config;
use crate::providers::twilio::numbers::{AvailableNumber, Numbers, OwnedNumber, Search, VoiceSettings};
use crate::providers::vapi::phone_numbers::{PhoneNumbers, VapiNumber};
use crate::replication;
use crate::store;
use crate::store::events::{self, Actor, NewEvent};
use crate::store::numbers::{self, PhoneNumber};
use crate::store::pointings::{self, NewPointing};

/// The event of a number that was taken over.
const ADOPTED: &str = "number.adopted";
/// The event of a number that another agent answers, or nobody.
const ASSIGNED: &str = "number.assigned";
/// The event of a number that was given back.
const RELEASED: &str = "number.released";

/// Numbers for sale.
pub async fn search(app: &App, search: &Search) -> Result<Vec<AvailableNumber>, NumberError> {
    let config = app.config.twilio.as_ref().ok_or(NumberError::NotConfigured("Twilio"))?;
    Ok(Numbers { http: &app.http, config, account: &config.account_sid }.search(search).await?)
}

/// A number that can be taken over.
#[derive(Clone, Debug)]
pub struct Adoptable {
    owned: OwnedNumber,
    at_vapi: Option<VapiNumber>,
}

/// Looks at Twilio and Vapi for a number to take over.
pub async fn look(app: &App, number: &E164) -> Result<Adoptable, NumberError> {
    if app.config.twilio.is_none() {
        return Err(NumberError::NotConfigured("Twilio"));
    }
    let at_vapi = match &app.config.vapi {
        Some(config) => PhoneNumbers { http: &app.http, config }.find(number).await?,
        None => None,
    };
    if at_vapi.as_ref().is_some_and(|known| known.provider != "twilio") {
        return Err(NumberError::NotTwilios);
    }
    let owned = find_owned(app, number).await?.ok_or(NumberError::NotOwned)?;
    Ok(Adoptable { owned, at_vapi })
}

/// Takes over a number that one of the Twilio accounts has, whether or not Vapi knows it. It gets the agent's system and
/// is pointed where that wants it; what Twilio says now is kept in the log, and for the way back if it leads to Vapi.
/// Within the caller's transaction, which must end soon after.
pub async fn adopt(
    conn: &mut PgConnection,
    config: &Config,
    project: ProjectId,
    agent: AgentId,
    number: &Adoptable,
    actor: &Actor,
) -> Result<NumberId, NumberError> {
    let Adoptable { owned, at_vapi } = number;
    let agent = store::agents::lock(conn, project, agent).await?.ok_or(NumberError::NoAgent)?;
    let place = place_for(&agent)?;
    let vapi_id = at_vapi.as_ref().map(|known| known.id.as_str());
    let inserted = numbers::insert(conn, project, agent.id, &owned.number, vapi_id).await?;
    let number_id = inserted.ok_or(NumberError::Known)?;
    let edge = VoiceSettings::to_edge(&config.edge_base(), &config.origin_base());
    let pointing = NewPointing {
        number_id,
        account: &owned.account,
        sid: &owned.sid,
        place,
        found: &owned.settings,
        remembered: at_vapi.as_ref().and(Some(&owned.settings)).filter(|settings| **settings != edge),
        assistant: at_vapi.as_ref().and_then(|known| known.assistant_id.as_deref()),
    };
    pointings::begin(conn, &pointing).await?;
    let event = NewEvent {
        agent_id: Some(agent.id),
        number_id: Some(number_id),
        before: Some(json!({ "twilioSid": owned.sid, "settings": owned.settings, "vapiPhoneNumberId": vapi_id })),
        after: Some(json!({ "number": owned.number, "systemType": agent.system_type })),
        ..NewEvent::new(project, ADOPTED, actor)
    };
    events::append(conn, &event).await?;
    pointing::job::enqueue(conn).await?;
    replication::enqueue(conn).await?;
    Ok(number_id)
}

/// The number in whichever account has it.
async fn find_owned(app: &App, number: &E164) -> Result<Option<OwnedNumber>, NumberError> {
    let config = app.config.twilio.as_ref().ok_or(NumberError::NotConfigured("Twilio"))?;
    for account in config.accounts() {
        if let Some(owned) = (Numbers { http: &app.http, config, account: &account }).find(number).await? {
            return Ok(Some(owned));
        }
    }
    Ok(None)
}

/// Has another agent answer the number, on that agent's system, or nobody: then callers hear that it is not in service.
/// Calls in flight stay where they are. Within the caller's transaction, which must end soon after.
pub async fn assign(
    conn: &mut PgConnection,
    project: ProjectId,
    number: NumberId,
    to: Option<AgentId>,
    actor: &Actor,
) -> Result<PhoneNumber, NumberError> {
    let number = lock(conn, project, number, to).await?;
    if number.agent_id == to {
        return Ok(number);
    }
    if let Some(agent) = to {
        let agent = store::agents::get(conn, project, agent).await?.ok_or(NumberError::NoAgent)?;
        place_for(&agent)?;
    }
    numbers::assign(conn, number.id, to).await?;
    let after = numbers::get(conn, project, number.id).await?.ok_or(NumberError::NoNumber)?;
    let event = NewEvent {
        agent_id: to.or(number.agent_id),
        number_id: Some(number.id),
        before: Some(json!({ "agentId": number.agent_id, "systemType": number.system_type })),
        after: Some(json!({ "agentId": after.agent_id, "systemType": after.system_type })),
        ..NewEvent::new(project, ASSIGNED, actor)
    };
    events::append(conn, &event).await?;
    if let Some(agent) = to {
        pointing::enqueue(conn, agent).await?;
    } else {
        pointings::request_edge(conn, number.id).await?;
        pointing::job::enqueue(conn).await?;
    }
    replication::enqueue(conn).await?;
    Ok(after)
}

/// Locks whoever answers the number and whoever will, in the order of all changes, and reads the number.
async fn lock(
    conn: &mut PgConnection,
    project: ProjectId,
    number: NumberId,
    other: Option<AgentId>,
) -> Result<PhoneNumber, NumberError> {
    loop {
        let before = numbers::get(conn, project, number).await?.ok_or(NumberError::NoNumber)?;
        let mut agents: Vec<AgentId> = before.agent_id.into_iter().chain(other).collect();
        agents.sort_unstable();
        agents.dedup();
        for agent in agents {
            store::agents::lock(conn, project, agent).await?.ok_or(NumberError::NoAgent)?;
        }
        // It may have moved while we waited; then the locks are the wrong ones, and those that matter follow.
        let now = numbers::get(conn, project, number).await?.ok_or(NumberError::NoNumber)?;
        if now.agent_id == before.agent_id {
            return Ok(now);
        }
    }
}

/// Gives a number back to Twilio, for good. Nobody may answer it any more, and nobody speak on it. May be repeated: what
/// was done before a crash is found done.
pub async fn release(app: &App, project: ProjectId, number: NumberId, actor: &Actor) -> Result<(), NumberError> {
    let (number, known) = {
        let mut conn = app.db.acquire().await?;
        let number = numbers::get(&mut conn, project, number).await?.ok_or(NumberError::NoNumber)?;
        check_free(&mut conn, &number).await?;
        let known = pointings::of_numbers(&mut conn, &[number.id]).await?.pop();
        (number, known)
    };
    let config = app.config.twilio.as_ref().ok_or(NumberError::NotConfigured("Twilio"))?;
    let names = match known.and_then(|known| known.at_twilio) {
        Some(names) => Some(names),
        None => find_owned(app, &number.number).await?.map(|owned| (owned.account, owned.sid)),
    };
    if let Some((account, sid)) = &names {
        Numbers { http: &app.http, config, account }.release(sid).await?;
    }
    if let (Some(id), Some(config)) = (&number.vapi_phone_number_id, &app.config.vapi) {
        PhoneNumbers { http: &app.http, config }.delete(id).await?;
    }
    let mut conn = app.db.acquire().await?;
    let mut tx = conn.begin().await?;
    let event = NewEvent {
        number_id: Some(number.id),
        before: Some(json!({ "number": number.number, "twilioSid": names.map(|(_, sid)| sid) })),
        ..NewEvent::new(project, RELEASED, actor)
    };
    events::append(&mut tx, &event).await?;
    numbers::delete(&mut tx, number.id).await?;
    replication::enqueue(&mut tx).await?;
    tx.commit().await?;
    tracing::info!(number_id = %number.id, %actor, "Released a number");
    Ok(())
}

async fn check_free(conn: &mut PgConnection, number: &PhoneNumber) -> Result<(), NumberError> {
    if number.agent_id.is_some() {
        return Err(NumberError::Assigned);
    }
    if numbers::has_live_calls(conn, number).await? {
        return Err(NumberError::CallsInFlight);
    }
    Ok(())
}
