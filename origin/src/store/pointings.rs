//! Where Twilio sends a number's calls, and what it was last found to say. One row for each number that it is told about.

use std::str::FromStr;
use utoipa::ToSchema;

use serde::Serialize;
use shared::{AccountSid, AgentId, AssistantId, E164, NumberId, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, StoreError, optional_text, text};
use crate::providers::twilio::numbers::VoiceSettings;

/// Where a number's calls are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// To us.
    Edge,
    /// Straight to Vapi.
    Vapi,
}

impl Place {
    /// The spelling in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Vapi => "vapi",
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        match text {
            "edge" => Ok(Self::Edge),
            "vapi" => Ok(Self::Vapi),
            _ => Err(()),
        }
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PointingState {
    /// To be done, or tried again.
    Pending,
    /// Twilio said so when it was last asked.
    Settled,
    /// Somebody else has changed the settings; nothing is overwritten.
    Conflict,
    /// Twilio or Vapi refused for good.
    Failed,
}

impl PointingState {
    /// How far several have come together: what is under way comes first, then the worst. `None`: there are none.
    pub fn of_all(states: impl Iterator<Item = Self>) -> Option<Self> {
        let rank = |state: &Self| match state {
            Self::Settled => 0,
            Self::Conflict => 1,
            Self::Failed => 2,
            Self::Pending => 3,
        };
        states.max_by_key(rank)
    }

    /// The spelling in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Settled => "settled",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for PointingState {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        [Self::Pending, Self::Settled, Self::Conflict, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// What is known of a number at Twilio.
#[derive(Clone, Debug)]
pub struct Pointing {
    /// The number's record.
    pub number_id: NumberId,
    /// Twilio's names of it.
    pub at_twilio: Option<(AccountSid, String)>,
    /// Where calls are to go.
    pub place: Place,
    /// Exact settings to bring about instead of those that follow from the place.
    pub image: Option<VoiceSettings>,
    /// How far it has come.
    pub state: PointingState,
    /// Which request this is.
    pub request: i64,
    /// When it was asked for.
    pub requested_at: OffsetDateTime,
    /// When it last became settled.
    pub settled_at: Option<OffsetDateTime>,
    /// The settings that calls reach Vapi with.
    pub remembered: Option<VoiceSettings>,
    /// What Twilio may be found with without anybody else having changed it. `None`: it was never asked.
    pub ours: Option<Vec<VoiceSettings>>,
    /// The assistant that answered there.
    pub assistant: Option<AssistantId>,
    /// Vapi was asked to save the number.
    pub vapi_saved: bool,
    /// What Twilio said last.
    pub found: Option<VoiceSettings>,
    /// How it differed when it was last checked. `None`: it never was.
    pub drift: Option<serde_json::Value>,
    /// When that was.
    pub checked_at: Option<OffsetDateTime>,
    /// Failed attempts of this request.
    pub attempts: i32,
    /// Why the last one failed: a stable word, and a sentence.
    pub error: Option<(String, String)>,
}

impl Pointing {
    /// What is known of a number that Twilio was never told about.
    pub fn unasked(number_id: NumberId, place: Place) -> Self {
        Self {
            number_id,
            at_twilio: None,
            place,
            image: None,
            state: PointingState::Pending,
            request: 1,
            requested_at: OffsetDateTime::UNIX_EPOCH,
            settled_at: None,
            remembered: None,
            ours: None,
            assistant: None,
            vapi_saved: false,
            found: None,
            drift: None,
            checked_at: None,
            attempts: 0,
            error: None,
        }
    }
}

/// A number to work on: its pointing, and what that depends on.
#[derive(Clone, Debug)]
pub struct Task {
    /// What is known of it at Twilio.
    pub pointing: Pointing,
    /// The number.
    pub number: E164,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who answers it.
    pub agent_id: Option<AgentId>,
    /// That agent's assistant at Vapi.
    pub assistant: Option<AssistantId>,
    /// The number's id at Vapi.
    pub vapi_phone_number_id: Option<String>,
}

struct Row {
    number_id: Uuid,
    account_sid: Option<String>,
    twilio_sid: Option<String>,
    place: String,
    image: Option<serde_json::Value>,
    state: String,
    request: i64,
    requested_at: OffsetDateTime,
    settled_at: Option<OffsetDateTime>,
    remembered: Option<serde_json::Value>,
    ours: Option<serde_json::Value>,
    assistant_id: Option<String>,
    vapi_saved: bool,
    found: Option<serde_json::Value>,
    drift: Option<serde_json::Value>,
    checked_at: Option<OffsetDateTime>,
    attempts: i32,
    error_code: Option<String>,
    error: Option<String>,
}

impl TryFrom<Row> for Pointing {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let account: Option<AccountSid> = optional_text(row.account_sid.as_deref(), "Twilio account")?;
        Ok(Self {
            number_id: NumberId(row.number_id),
            at_twilio: account.zip(row.twilio_sid),
            place: row.place.parse().map_err(|()| StoreError::Corrupt("place of a number"))?,
            image: settings(row.image)?,
            state: row.state.parse().map_err(|()| StoreError::Corrupt("state of a pointing"))?,
            request: row.request,
            requested_at: row.requested_at,
            settled_at: row.settled_at,
            remembered: settings(row.remembered)?,
            ours: settings(row.ours)?,
            assistant: optional_text(row.assistant_id.as_deref(), "Vapi assistant id")?,
            vapi_saved: row.vapi_saved,
            found: settings(row.found)?,
            drift: row.drift,
            checked_at: row.checked_at,
            attempts: row.attempts,
            error: row.error_code.map(|code| (code, row.error.unwrap_or_default())),
        })
    }
}

fn settings<T: serde::de::DeserializeOwned>(value: Option<serde_json::Value>) -> Result<Option<T>> {
    value.map(serde_json::from_value).transpose().map_err(|_| StoreError::Corrupt("voice settings"))
}

/// Asks for the agent's numbers to be pointed where they belong now; tells whether any has to be. Numbers that stay at
/// the edge whichever system answers are left out until Twilio was told about them for another reason.
pub async fn request_for_agent(conn: &mut PgConnection, agent: AgentId) -> Result<bool> {
    let requested = sqlx::query_scalar!(
        "insert into pointings as p (number_id, place)
         select n.id, case when n.system_type = 'vapi' and n.vapi_handover = 'none' then 'vapi' else 'edge' end
         from phone_numbers n
         where n.agent_id = $1
           and (n.vapi_handover = 'none' or exists (select from pointings known where known.number_id = n.id))
         order by n.id
         on conflict (number_id) do update set
             place = excluded.place, image = null, state = 'pending', request = p.request + 1,
             requested_at = clock_timestamp(), attempts = 0, next_at = now(), error_code = null, error = null
         where p.place <> excluded.place or p.state <> 'settled' or p.image is not null
            or (p.place = 'vapi' and p.assistant_id is distinct from
                    (select a.vapi_assistant_id from agents a where a.id = $1))
         returning number_id",
        agent.0
    )
    .fetch_all(conn)
    .await?;
    Ok(!requested.is_empty())
}

/// A number that Tandem has just got, as Twilio has it.
#[derive(Clone, Debug)]
pub struct NewPointing<'a> {
    /// The number's record.
    pub number_id: NumberId,
    /// Twilio's account of it.
    pub account: &'a AccountSid,
    /// Twilio's name of it.
    pub sid: &'a str,
    /// Where calls are to go.
    pub place: Place,
    /// What Twilio says now.
    pub found: &'a VoiceSettings,
    /// The settings that calls reach Vapi with, if they do.
    pub remembered: Option<&'a VoiceSettings>,
    /// The assistant that answers there.
    pub assistant: Option<&'a str>,
}

/// Begins to tell Twilio about a number.
pub async fn begin(conn: &mut PgConnection, new: &NewPointing<'_>) -> Result<()> {
    sqlx::query!(
        "insert into pointings (number_id, account_sid, twilio_sid, place, found, found_at, ours, remembered, assistant_id)
         values ($1, $2, $3, $4, $5, clock_timestamp(), jsonb_build_array($5::jsonb), $6, $7)",
        new.number_id.0,
        new.account.as_str(),
        new.sid,
        new.place.as_str(),
        json(new.found),
        new.remembered.map(json),
        new.assistant
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Asks for a number's calls to come to us, whoever answers it.
pub async fn request_edge(conn: &mut PgConnection, number: NumberId) -> Result<()> {
    sqlx::query!(
        "update pointings set place = 'edge', image = null, state = 'pending', request = request + 1,
                requested_at = clock_timestamp(), attempts = 0, next_at = now(), error_code = null, error = null
         where number_id = $1 and (place <> 'edge' or state <> 'settled' or image is not null)",
        number.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Asks for exactly these settings for numbers that go to Vapi; tells whether there are any. The others are left out.
pub async fn request_images(conn: &mut PgConnection, images: &[(NumberId, VoiceSettings)]) -> Result<bool> {
    let (numbers, settings): (Vec<Uuid>, Vec<serde_json::Value>) =
        images.iter().map(|(number, settings)| (number.0, json(settings))).unzip();
    let done = sqlx::query!(
        "update pointings p set
             image = wanted.image, state = 'pending', request = p.request + 1, requested_at = clock_timestamp(),
             attempts = 0, next_at = now(), error_code = null, error = null
         from unnest($1::uuid[], $2::jsonb[]) as wanted (number_id, image)
         where p.number_id = wanted.number_id and p.place = 'vapi'",
        &numbers,
        &settings
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Asks once more for what was asked for. With `overwrite`, what somebody else has set counts as ours from now on: it
/// may be overwritten, and is remembered if calls reached Vapi with it. `false`: there is nothing to repeat.
pub async fn request_again(conn: &mut PgConnection, number: NumberId, overwrite: bool) -> Result<bool> {
    let done = sqlx::query!(
        "update pointings set
             ours = case when $2 then coalesce(ours, '[]') || jsonb_build_array(found) else ours end,
             state = 'pending', request = request + 1, requested_at = clock_timestamp(), attempts = 0,
             next_at = now(), error_code = null, error = null
         where number_id = $1 and (not $2 or found is not null)",
        number.0,
        overwrite
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes up to `limit` numbers whose turn it is; nobody else gets them for `seconds`.
pub async fn claim(conn: &mut PgConnection, limit: i64, seconds: f64) -> Result<Vec<NumberId>> {
    let ids = sqlx::query_scalar!(
        "update pointings set claimed_until = now() + make_interval(secs => $2)
         where number_id in (
             select number_id from pointings
             where state = 'pending' and next_at <= now() and (claimed_until is null or claimed_until < now())
             order by next_at, number_id limit $1 for update skip locked)
         returning number_id",
        limit,
        seconds
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(NumberId).collect())
}

/// A number to work on, as everything is now.
pub async fn task(conn: &mut PgConnection, number: NumberId) -> Result<Option<Task>> {
    let Some(pointing) = of_numbers(conn, &[number]).await?.pop() else { return Ok(None) };
    let row = sqlx::query!(
        "select n.number, n.project_id, n.agent_id, n.vapi_phone_number_id,
                a.vapi_assistant_id as \"vapi_assistant_id?\"
         from phone_numbers n left join agents a on a.id = n.agent_id where n.id = $1",
        number.0
    )
    .fetch_one(conn)
    .await?;
    Ok(Some(Task {
        pointing,
        number: text(&row.number, "phone number")?,
        project_id: ProjectId(row.project_id),
        agent_id: row.agent_id.map(AgentId),
        assistant: optional_text(row.vapi_assistant_id.as_deref(), "Vapi assistant id")?,
        vapi_phone_number_id: row.vapi_phone_number_id,
    }))
}

/// What is known of these numbers at Twilio. Those it was never told about are missing.
pub async fn of_numbers(conn: &mut PgConnection, numbers: &[NumberId]) -> Result<Vec<Pointing>> {
    let ids: Vec<Uuid> = numbers.iter().map(|number| number.0).collect();
    sqlx::query_as!(
        Row,
        "select number_id, account_sid, twilio_sid, place, image, state, request, requested_at, settled_at, remembered,
                ours, assistant_id, vapi_saved, found, drift, checked_at, attempts, error_code, error
         from pointings where number_id = any($1) order by number_id",
        &ids
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Pointing::try_from)
    .collect()
}

/// Notes what Twilio said, and what it may be found with from now on.
#[derive(Clone, Debug)]
pub struct Noted<'a> {
    /// Twilio's account of the number.
    pub account: &'a AccountSid,
    /// Twilio's name of it.
    pub sid: &'a str,
    /// What it said.
    pub found: &'a VoiceSettings,
    /// What it may be found with.
    pub ours: &'a [VoiceSettings],
    /// The settings that calls reach Vapi with.
    pub remembered: Option<&'a VoiceSettings>,
    /// The assistant that answers there.
    pub assistant: Option<&'a AssistantId>,
    /// Vapi is being asked to save the number.
    pub vapi_saved: bool,
}

/// Notes something, before anything is written because of it.
pub async fn note(conn: &mut PgConnection, number: NumberId, noted: &Noted<'_>) -> Result<()> {
    sqlx::query!(
        "update pointings set account_sid = $2, twilio_sid = $3, found = $4, found_at = clock_timestamp(), ours = $5,
                remembered = $6, assistant_id = $7, vapi_saved = $8 where number_id = $1",
        number.0,
        noted.account.as_str(),
        noted.sid,
        json(noted.found),
        json(noted.ours),
        noted.remembered.map(json),
        noted.assistant.map(AssistantId::as_str),
        noted.vapi_saved
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Settles a request, unless there is a newer one. `false`: there is.
pub async fn settle(conn: &mut PgConnection, number: NumberId, request: i64) -> Result<bool> {
    let done = sqlx::query!(
        "update pointings set state = 'settled', settled_at = clock_timestamp(), claimed_until = null,
                error_code = null, error = null
         where number_id = $1 and request = $2",
        number.0,
        request
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// What became of an attempt that did not settle a request.
#[derive(Clone, Copy, Debug)]
pub struct Setback<'a> {
    /// `pending`: it is tried again.
    pub state: PointingState,
    /// How long it waits for that.
    pub wait_seconds: f64,
    /// Why: a stable word.
    pub code: &'a str,
    /// Why, in a sentence.
    pub error: &'a str,
}

/// Notes a failed attempt, unless there is a newer request, which then has its turn.
pub async fn set_back(conn: &mut PgConnection, number: NumberId, request: i64, setback: &Setback<'_>) -> Result<()> {
    sqlx::query!(
        "update pointings set state = $3, attempts = attempts + 1,
                next_at = now() + make_interval(secs => $4), error_code = $5, error = $6
         where number_id = $1 and request = $2",
        number.0,
        request,
        setback.state.as_str(),
        setback.wait_seconds,
        setback.code,
        super::without_nul(setback.error)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets others have a number that was claimed.
pub async fn unclaim(conn: &mut PgConnection, number: NumberId) -> Result<()> {
    sqlx::query!("update pointings set claimed_until = null where number_id = $1", number.0).execute(conn).await?;
    Ok(())
}

/// When the next pending number is due, in seconds from now; at once is 0. `None`: none is pending.
pub async fn next_due(conn: &mut PgConnection) -> Result<Option<f64>> {
    let seconds = sqlx::query_scalar!(
        "select extract(epoch from min(greatest(next_at, claimed_until)) - now())::float8
         from pointings where state = 'pending'"
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds.map(|seconds| seconds.max(0.0)))
}

/// A number to be checked for drift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The number's record.
    pub number_id: NumberId,
    /// The number.
    pub number: E164,
    /// Which system answers it.
    pub system_type: SystemType,
    /// Which system its agent is on.
    pub agent_system: Option<SystemType>,
    /// That agent's assistant at Vapi.
    pub assistant: Option<String>,
    /// The number's id at Vapi.
    pub vapi_phone_number_id: Option<String>,
    /// Where calls are to go.
    pub place: Place,
    /// How far that has come.
    pub state: PointingState,
    /// What Twilio said when it was last told.
    pub found: Option<VoiceSettings>,
}

/// Every number that Twilio is told about.
pub async fn all(conn: &mut PgConnection) -> Result<Vec<Checked>> {
    let rows = sqlx::query!(
        r#"select p.number_id, n.number, n.system_type, a.system_type as "agent_system?",
                  a.vapi_assistant_id as "assistant?", n.vapi_phone_number_id, p.place, p.state, p.found
           from pointings p join phone_numbers n on n.id = p.number_id left join agents a on a.id = n.agent_id
           order by n.number"#
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Checked {
                number_id: NumberId(row.number_id),
                number: text(&row.number, "phone number")?,
                system_type: text(&row.system_type, "system type")?,
                agent_system: optional_text(row.agent_system.as_deref(), "system type")?,
                assistant: row.assistant,
                vapi_phone_number_id: row.vapi_phone_number_id,
                place: row.place.parse().map_err(|()| StoreError::Corrupt("place of a number"))?,
                state: row.state.parse().map_err(|()| StoreError::Corrupt("state of a pointing"))?,
                found: settings(row.found)?,
            })
        })
        .collect()
}

/// Notes on each number how it differs.
pub async fn note_drift(conn: &mut PgConnection, notes: &[(NumberId, serde_json::Value)]) -> Result<()> {
    let (ids, drifts): (Vec<Uuid>, Vec<serde_json::Value>) =
        notes.iter().map(|(id, drift)| (id.0, drift.clone())).unzip();
    sqlx::query!(
        "update pointings p set drift = noted.drift, checked_at = clock_timestamp()
         from unnest($1::uuid[], $2::jsonb[]) as noted (id, drift) where p.number_id = noted.id",
        &ids,
        &drifts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether Twilio may still have sent a call, that began at this moment, to another place than this. `number`: the one
/// that was called, if it is known; else any of the agent's may have been.
pub async fn may_be_elsewhere(
    conn: &mut PgConnection,
    agent: AgentId,
    number: Option<&E164>,
    place: Place,
    began_at: OffsetDateTime,
    grace_seconds: f64,
) -> Result<bool> {
    let elsewhere = sqlx::query_scalar!(
        r#"select exists (
               select from pointings p join phone_numbers n on n.id = p.number_id
               where n.agent_id = $1 and ($2::text is null or n.number = $2) and p.place = $3
                 and (p.state <> 'settled' or $4 < p.settled_at + make_interval(secs => $5))) as "elsewhere!""#,
        agent.0,
        number.map(E164::as_str),
        place.as_str(),
        began_at,
        grace_seconds
    )
    .fetch_one(conn)
    .await?;
    Ok(elsewhere)
}

/// Settings as they are kept. Texts alone, which always serialise.
fn json(settings: &(impl Serialize + ?Sized)) -> serde_json::Value {
    serde_json::to_value(settings).unwrap_or_default()
}
