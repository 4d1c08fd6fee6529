//! Taking over numbers that are at Twilio or Vapi already, giving them to agents, and giving them back.

use serde_json::json;
use shared::{AgentId, E164, NumberId, ProjectId};
use sqlx::{Connection as _, PgConnection};

use super::{NumberError, place_for, place_for_new, pointing};
use crate::App;
use crate::config::Config;
use crate::providers::twilio::numbers::{AvailableNumber, Numbers, OwnedNumber, Search, VoiceSettings};
use crate::providers::vapi::phone_numbers::{PhoneNumbers, VapiNumber};
use crate::replication;
use crate::store;
use crate::store::events::{self, Actor, NewEvent};
use crate::store::numbers::{self, PhoneNumber};
use crate::store::pointings::{self, NewPointing};
use crate::store::purchases;

/// The event of a number that was taken over.
const ADOPTED: &str = "number.adopted";
/// The event of a number that another agent answers, or nobody.
const ASSIGNED: &str = "number.assigned";
/// The event of a number that is to be given back.
const RELEASING: &str = "number.releasing";
/// The event of a number that Vapi does not know any more.
const DELETED_AT_VAPI: &str = "number.deleted_at_vapi";
/// The event of a number that Vapi or Twilio did not take back.
const RELEASE_REFUSED: &str = "number.release_refused";
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
    let place = place_for_new(&agent, config)?;
    // What is being bought is in the account before it has a record.
    if purchases::is_open(conn, &owned.number).await? {
        return Err(NumberError::BeingBought);
    }
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

/// Has another agent answer the number, as [`give`] does.
pub async fn assign(
    conn: &mut PgConnection,
    project: ProjectId,
    number: NumberId,
    to: Option<AgentId>,
    actor: &Actor,
) -> Result<PhoneNumber, NumberError> {
    let number = lock(conn, project, number, to).await?;
    give(conn, number, to, actor).await
}

/// Has another agent answer a locked number, on that agent's system, or nobody: then callers hear that it is not in
/// service. Calls in flight stay where they are. Within the caller's transaction, which must end soon after.
pub async fn give(
    conn: &mut PgConnection,
    number: PhoneNumber,
    to: Option<AgentId>,
    actor: &Actor,
) -> Result<PhoneNumber, NumberError> {
    if number.agent_id == to {
        return Ok(number);
    }
    if number.releasing_since.is_some() {
        return Err(NumberError::Releasing);
    }
    let project = number.project_id;
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

/// Locks a number after whoever answers it and whoever will, which is the order of all changes.
pub async fn lock(
    conn: &mut PgConnection,
    project: ProjectId,
    number: NumberId,
    other: Option<AgentId>,
) -> Result<PhoneNumber, NumberError> {
    loop {
        // What is locked in vain is let go with it, so that the order is kept.
        let mut attempt = conn.begin().await?;
        let before = numbers::get(&mut attempt, project, number).await?.ok_or(NumberError::NoNumber)?;
        let mut agents: Vec<AgentId> = before.agent_id.into_iter().chain(other).collect();
        agents.sort_unstable();
        agents.dedup();
        for agent in agents {
            // One that is not there cannot be locked; who gives it the number finds out.
            store::agents::lock(&mut attempt, project, agent).await?;
        }
        let now = numbers::lock(&mut attempt, project, number).await?.ok_or(NumberError::NoNumber)?;
        // It may have moved while we waited. Then the locks are the wrong ones.
        if now.agent_id == before.agent_id {
            attempt.commit().await?;
            return Ok(now);
        }
        attempt.rollback().await?;
    }
}

/// Asks once more, for a locked number, for what Twilio was to be told, after a conflict or a failure. With `overwrite`,
/// settings that somebody else made give way, and are remembered for the way back to Vapi.
pub async fn point(
    conn: &mut PgConnection,
    number: &PhoneNumber,
    overwrite: bool,
    actor: &Actor,
) -> Result<(), NumberError> {
    if number.releasing_since.is_some() {
        return Err(NumberError::Releasing);
    }
    let known = pointings::of_numbers(conn, &[number.id]).await?.pop().ok_or(NumberError::NotPointed)?;
    // With nothing found yet there is nothing to overwrite.
    if pointing::retry(conn, number.id, overwrite && known.found.is_some(), actor).await? {
        Ok(())
    } else {
        Err(NumberError::NotPointed)
    }
}

/// Gives a number back to Twilio, for good: begins and finishes it. What was done before a crash is found done.
pub async fn release(app: &App, project: ProjectId, number: NumberId, actor: &Actor) -> Result<(), NumberError> {
    let mut conn = app.db.acquire().await?;
    let mut tx = conn.begin().await?;
    let number = lock(&mut tx, project, number, None).await?;
    begin_release(&mut tx, &app.config, &number, actor).await?;
    tx.commit().await?;
    drop(conn);
    finish_release(app, project, number.id, actor).await
}

/// Begins to give a locked number back: nobody gets it any more. Nobody may answer it, and nobody speak on it. Within
/// the caller's transaction, after which [`finish_release`] is due.
pub async fn begin_release(
    conn: &mut PgConnection,
    config: &Config,
    number: &PhoneNumber,
    actor: &Actor,
) -> Result<(), NumberError> {
    config.twilio.as_ref().ok_or(NumberError::NotConfigured("Twilio"))?;
    if number.agent_id.is_some() {
        return Err(NumberError::Assigned);
    }
    if numbers::has_live_calls(conn, number).await? {
        return Err(NumberError::CallsInFlight);
    }
    if number.releasing_since.is_none() {
        numbers::set_releasing(conn, number.id, true).await?;
        let event = NewEvent {
            number_id: Some(number.id),
            before: Some(json!({ "number": number.number, "releasing": false })),
            after: Some(json!({ "number": number.number, "releasing": true })),
            ..NewEvent::new(number.project_id, RELEASING, actor)
        };
        events::append(conn, &event).await?;
    }
    Ok(())
}

/// Gives back a number whose release has begun. May be repeated until it is gone. When Twilio or Vapi refuse for good
/// the number stays, and may be used again.
pub async fn finish_release(app: &App, project: ProjectId, id: NumberId, actor: &Actor) -> Result<(), NumberError> {
    let number = numbers::get(&mut *app.db.acquire().await?, project, id).await?.ok_or(NumberError::NoNumber)?;
    match give_back(app, &number, actor).await {
        Ok(sid) => forget(app, &number, sid, actor).await,
        Err(error) => {
            if error.passes().is_none() {
                let mut conn = app.db.acquire().await?;
                let mut tx = conn.begin().await?;
                numbers::set_releasing(&mut tx, id, false).await?;
                let event = NewEvent {
                    number_id: Some(id),
                    before: Some(json!({ "releasing": true })),
                    after: Some(json!({ "releasing": false })),
                    details: json!({ "code": error.code(), "error": error.to_string() }),
                    ..NewEvent::new(project, RELEASE_REFUSED, actor)
                };
                events::append(&mut tx, &event).await?;
                tx.commit().await?;
            }
            Err(error)
        }
    }
}

/// Vapi comes first, as what Twilio has got back cannot be had again. Gives Twilio's name of the number, if it was there.
async fn give_back(app: &App, number: &PhoneNumber, actor: &Actor) -> Result<Option<String>, NumberError> {
    let config = app.config.twilio.as_ref().ok_or(NumberError::NotConfigured("Twilio"))?;
    if let (Some(id), Some(config)) = (&number.vapi_phone_number_id, &app.config.vapi) {
        PhoneNumbers { http: &app.http, config }.delete(id).await?;
        // Should Twilio refuse, nobody may believe that Vapi still takes the number's calls.
        let mut conn = app.db.acquire().await?;
        let mut tx = conn.begin().await?;
        numbers::set_vapi_id(&mut tx, number.id, None).await?;
        let event = NewEvent {
            number_id: Some(number.id),
            before: Some(json!({ "vapiPhoneNumberId": id })),
            after: Some(json!({ "vapiPhoneNumberId": null })),
            ..NewEvent::new(number.project_id, DELETED_AT_VAPI, actor)
        };
        events::append(&mut tx, &event).await?;
        tx.commit().await?;
    }
    let known = pointings::of_numbers(&mut *app.db.acquire().await?, &[number.id]).await?.pop();
    let names = match known.and_then(|known| known.at_twilio) {
        Some(names) => Some(names),
        None => find_owned(app, &number.number).await?.map(|owned| (owned.account, owned.sid)),
    };
    if let Some((account, sid)) = &names {
        Numbers { http: &app.http, config, account }.release(sid).await?;
    }
    Ok(names.map(|(_, sid)| sid))
}

async fn forget(app: &App, number: &PhoneNumber, twilio_sid: Option<String>, actor: &Actor) -> Result<(), NumberError> {
    let mut conn = app.db.acquire().await?;
    let mut tx = conn.begin().await?;
    // Of two who gave it back at once, one logs it.
    numbers::lock(&mut tx, number.project_id, number.id).await?.ok_or(NumberError::NoNumber)?;
    let event = NewEvent {
        number_id: Some(number.id),
        before: Some(json!({ "number": number.number, "twilioSid": twilio_sid })),
        ..NewEvent::new(number.project_id, RELEASED, actor)
    };
    events::append(&mut tx, &event).await?;
    numbers::delete(&mut tx, number.id).await?;
    replication::enqueue(&mut tx).await?;
    tx.commit().await?;
    tracing::info!(number_id = %number.id, %actor, "Released a number");
    Ok(())
}
