//! Calls: one record for each phone call, whichever system runs it.
//!
//! Everything that arrives about a call may arrive twice, late or out of order. The statements here are written so
//! that the first word on a fact counts, on a time the earliest, and repeating it changes nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{AccountSid, AgentId, CallId, CallSid, E164, NumberId, ProjectId, SystemType, VapiCallId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Result, StoreError, optional_text, text};
use crate::end_reason::{EndReason, Ending};

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CallStatus {
    /// Known, not yet answered.
    Ringing,
    /// Answered.
    InProgress,
    /// Over.
    Ended,
}

impl CallStatus {
    /// The spelling in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Ended => "ended",
        }
    }
}

impl FromStr for CallStatus {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self> {
        [Self::Ringing, Self::InProgress, Self::Ended]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or(StoreError::Corrupt("call status"))
    }
}

impl fmt::Display for CallStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A phone call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Our id of the call.
    pub id: CallId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who answers it.
    pub agent_id: AgentId,
    /// The number that was called.
    pub number_id: Option<NumberId>,
    /// Twilio's name for it.
    pub call_sid: Option<CallSid>,
    /// Vapi's name for it.
    pub vapi_call_id: Option<VapiCallId>,
    /// The caller, as the provider gave it: a number, `anonymous`, a SIP address.
    pub from: Option<String>,
    /// Whom they called.
    pub to: Option<String>,
    /// The system that the call belongs to: the one it began on, unless that could not have it.
    pub system_type: SystemType,
    /// Why it is not, or will not stay, on the system that it began on.
    pub pin_reason: Option<String>,
    /// How far it has come.
    pub status: CallStatus,
    /// When we first heard of it.
    pub started_at: OffsetDateTime,
    /// When it was answered.
    pub answered_at: Option<OffsetDateTime>,
    /// When it ended.
    pub ended_at: Option<OffsetDateTime>,
    /// Why it ended.
    pub end_reason: Option<EndReason>,
    /// How often it lost its stream and was taken up again.
    pub resumes: i32,
    /// Tokens, seconds and the like, in the provider's terms.
    pub usage: Value,
}

/// A call that begins. It needs at least one of its two names.
#[derive(Clone, Debug)]
pub struct NewCall<'a> {
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who answers it.
    pub agent_id: AgentId,
    /// The number that was called.
    pub number_id: Option<NumberId>,
    /// Twilio's name for it.
    pub call_sid: Option<&'a CallSid>,
    /// Vapi's name for it.
    pub vapi_call_id: Option<&'a VapiCallId>,
    /// The caller.
    pub from: Option<&'a str>,
    /// Whom they called.
    pub to: Option<&'a str>,
    /// The system that it begins on.
    pub system_type: SystemType,
    /// When it began.
    pub started_at: OffsetDateTime,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    agent_id: Uuid,
    number_id: Option<Uuid>,
    call_sid: Option<String>,
    vapi_call_id: Option<String>,
    from_number: Option<String>,
    to_number: Option<String>,
    system_type: String,
    pin_reason: Option<String>,
    status: String,
    started_at: OffsetDateTime,
    answered_at: Option<OffsetDateTime>,
    ended_at: Option<OffsetDateTime>,
    end_reason: Option<String>,
    resumes: i32,
    usage: Value,
}

impl TryFrom<Row> for Call {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: CallId(row.id),
            project_id: ProjectId(row.project_id),
            agent_id: AgentId(row.agent_id),
            number_id: row.number_id.map(NumberId),
            call_sid: optional_text(row.call_sid.as_deref(), "call SID")?,
            vapi_call_id: optional_text(row.vapi_call_id.as_deref(), "Vapi call id")?,
            from: row.from_number,
            to: row.to_number,
            system_type: text(&row.system_type, "system type")?,
            pin_reason: row.pin_reason,
            status: row.status.parse()?,
            started_at: row.started_at,
            answered_at: row.answered_at,
            ended_at: row.ended_at,
            // A word of a newer version is none of ours.
            end_reason: row.end_reason.map(|word| EndReason::parse(&word).unwrap_or(EndReason::Other)),
            resumes: row.resumes,
            usage: row.usage,
        })
    }
}

/// Records and pins a call. When it is known already, under either name, the earlier record and its pin stand.
/// Returns the record and whether it is new.
pub async fn begin(conn: &mut PgConnection, call: &NewCall<'_>) -> Result<(Call, bool)> {
    let inserted = sqlx::query!(
        "insert into calls (id, project_id, agent_id, number_id, call_sid, vapi_call_id, from_number, to_number,
                            system_type, started_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict do nothing",
        Uuid::now_v7(),
        call.project_id.0,
        call.agent_id.0,
        call.number_id.map(|id| id.0),
        call.call_sid.map(CallSid::as_str),
        call.vapi_call_id.map(VapiCallId::as_str),
        call.from,
        call.to,
        call.system_type.as_str(),
        call.started_at
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    // A conflicting insert has waited for the other one to commit, so its row is visible now.
    let row = sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number_id, call_sid, vapi_call_id, from_number, to_number, system_type, pin_reason,
                status, started_at, answered_at, ended_at, end_reason, resumes, usage
         from calls where call_sid = $1 or vapi_call_id = $2 order by id limit 1",
        call.call_sid.map(CallSid::as_str),
        call.vapi_call_id.map(VapiCallId::as_str)
    )
    .fetch_one(conn)
    .await?;
    Ok((row.try_into()?, inserted == 1))
}

/// The call with this name at Twilio.
pub async fn by_call_sid(conn: &mut PgConnection, call_sid: &CallSid) -> Result<Option<Call>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number_id, call_sid, vapi_call_id, from_number, to_number, system_type, pin_reason,
                status, started_at, answered_at, ended_at, end_reason, resumes, usage
         from calls where call_sid = $1",
        call_sid.as_str()
    )
    .fetch_optional(conn)
    .await?
    .map(Call::try_from)
    .transpose()
}

/// The call with this name at Vapi.
pub async fn by_vapi_call_id(conn: &mut PgConnection, vapi_call_id: &VapiCallId) -> Result<Option<Call>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number_id, call_sid, vapi_call_id, from_number, to_number, system_type, pin_reason,
                status, started_at, answered_at, ended_at, end_reason, resumes, usage
         from calls where vapi_call_id = $1",
        vapi_call_id.as_str()
    )
    .fetch_optional(conn)
    .await?
    .map(Call::try_from)
    .transpose()
}

/// One call of a project.
pub async fn get(conn: &mut PgConnection, project: ProjectId, id: CallId) -> Result<Option<Call>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number_id, call_sid, vapi_call_id, from_number, to_number, system_type, pin_reason,
                status, started_at, answered_at, ended_at, end_reason, resumes, usage
         from calls where project_id = $1 and id = $2",
        project.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Call::try_from)
    .transpose()
}

/// Which calls to list; what is not said does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this agent.
    pub agent_id: Option<AgentId>,
    /// To this number of ours.
    pub number_id: Option<NumberId>,
    /// Run by this system.
    pub system_type: Option<SystemType>,
    /// That have come so far.
    pub status: Option<CallStatus>,
    /// That ended for this reason.
    pub end_reason: Option<EndReason>,
    /// With this name at Twilio.
    pub call_sid: Option<CallSid>,
    /// With this name at Vapi.
    pub vapi_call_id: Option<VapiCallId>,
    /// That began then or later.
    pub since: Option<OffsetDateTime>,
    /// That began before.
    pub until: Option<OffsetDateTime>,
}

/// The project's calls, the newest first; with `before`, those recorded before that one.
pub async fn list(
    conn: &mut PgConnection,
    project: ProjectId,
    filter: &Filter,
    before: Option<CallId>,
    limit: i64,
) -> Result<Vec<Call>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number_id, call_sid, vapi_call_id, from_number, to_number, system_type, pin_reason,
                status, started_at, answered_at, ended_at, end_reason, resumes, usage
         from calls
         where project_id = $1 and ($2::uuid is null or id < $2)
           and ($3::uuid is null or agent_id = $3) and ($4::uuid is null or number_id = $4)
           and ($5::text is null or system_type = $5) and ($6::text is null or status = $6)
           and ($7::text is null or end_reason = $7)
           and ($8::text is null or call_sid = $8) and ($9::text is null or vapi_call_id = $9)
           and ($10::timestamptz is null or started_at >= $10) and ($11::timestamptz is null or started_at < $11)
         order by id desc limit $12",
        project.0,
        before.map(|id| id.0),
        filter.agent_id.map(|id| id.0),
        filter.number_id.map(|id| id.0),
        filter.system_type.map(SystemType::as_str),
        filter.status.map(CallStatus::as_str),
        filter.end_reason.map(EndReason::as_str),
        filter.call_sid.as_ref().map(CallSid::as_str),
        filter.vapi_call_id.as_ref().map(VapiCallId::as_str),
        filter.since,
        filter.until,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Call::try_from)
    .collect()
}

/// Joins a call that Twilio named to its name at Vapi, after it was handed over.
pub async fn set_vapi_call_id(conn: &mut PgConnection, id: CallId, vapi_call_id: &VapiCallId) -> Result<()> {
    sqlx::query!(
        "update calls set vapi_call_id = $2 where id = $1 and vapi_call_id is null",
        id.0,
        vapi_call_id.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes who calls whom, as far as that is not known yet.
pub async fn set_parties(
    conn: &mut PgConnection,
    id: CallId,
    number: Option<NumberId>,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "update calls set number_id = coalesce(number_id, $2), from_number = coalesce(from_number, $3),
                          to_number = coalesce(to_number, $4)
         where id = $1 and (number_id is null or from_number is null or to_number is null)",
        id.0,
        number.map(|id| id.0),
        from,
        to
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the call's system cannot have it, and why. The first reason counts; an ended call needs none.
pub async fn must_leave(conn: &mut PgConnection, id: CallId, reason: &str) -> Result<()> {
    sqlx::query!(
        "update calls set pin_reason = $2 where id = $1 and pin_reason is null and status <> 'ended'",
        id.0,
        reason
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves the pin of a call that its system cannot have. `false`: it was moved before, or the call is over.
pub async fn move_pin(conn: &mut PgConnection, id: CallId, to: SystemType, reason: &str) -> Result<bool> {
    let done = sqlx::query!(
        "update calls set system_type = $2, pin_reason = coalesce(pin_reason, $3)
         where id = $1 and system_type <> $2 and status <> 'ended'",
        id.0,
        to.as_str(),
        reason
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that the call was answered, not before it began and not after its end. Of several words the earliest counts, so
/// that every order of them gives the same.
pub async fn answered(conn: &mut PgConnection, id: CallId, at: OffsetDateTime) -> Result<()> {
    let done = sqlx::query!(
        "update calls set answered_at = greatest(started_at, $2), status = 'in-progress'
         where id = $1 and status = 'ringing'",
        id.0,
        at
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(());
    }
    sqlx::query!(
        "update calls set answered_at = greatest(started_at, least(answered_at, ended_at, $2))
         where id = $1 and status <> 'ringing' and (answered_at is null or answered_at > $2)",
        id.0,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A stream of ours that a call has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Which of the call's, counted from 1.
    pub number: i32,
    /// How many steps the call has made or planned.
    pub steps: i32,
}

/// Counts that a stream begins.
pub async fn enter_stream(conn: &mut PgConnection, id: CallId) -> Result<Stream> {
    let stream = sqlx::query_as!(
        Stream,
        r#"update calls set streams = streams + 1 where id = $1
           returning streams as number,
                     (select coalesce(max(no), 0) from call_steps where call_id = $1) as "steps!""#,
        id.0
    )
    .fetch_one(conn)
    .await?;
    Ok(stream)
}

/// A time that a call lost its stream and was taken up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// Which time it was, counted from 1.
    pub count: i32,
    /// How many in a row followed soon upon the one before, this one included.
    pub failures: i32,
    /// When.
    pub at: OffsetDateTime,
}

/// A stream that lasted so long, in seconds, had not failed to begin with.
const LASTING_S: f64 = 60.0;

/// Counts that the call lost its stream and is taken up again. The same `delivery` as the last time counts once.
pub async fn resumed(conn: &mut PgConnection, id: CallId, delivery: Option<&str>) -> Result<Resumption> {
    let row = sqlx::query_as!(
        Resumption,
        r#"update calls set
               resumes = case when resume_delivery = $2 then resumes else resumes + 1 end,
               failures = case when resume_delivery = $2 then failures
                               when resumed_at > clock_timestamp() - make_interval(secs => $3) then failures + 1
                               else 1 end,
               resumed_at = case when resume_delivery = $2 then resumed_at else clock_timestamp() end,
               resume_delivery = $2
           where id = $1 returning resumes as count, failures, resumed_at as "at!""#,
        id.0,
        delivery,
        LASTING_S
    )
    .fetch_one(conn)
    .await?;
    Ok(row)
}

/// How many streams in a row have failed by now.
pub async fn failures(conn: &mut PgConnection, id: CallId) -> Result<i32> {
    let failures = sqlx::query_scalar!(
        r#"select case when resumed_at > clock_timestamp() - make_interval(secs => $2) then failures else 0 end as "count!"
           from calls where id = $1"#,
        id.0,
        LASTING_S
    )
    .fetch_one(conn)
    .await?;
    Ok(failures)
}

/// The time that the call was last taken up again, if it was for this `delivery`.
pub async fn resumed_for(conn: &mut PgConnection, id: CallId, delivery: &str) -> Result<Option<Resumption>> {
    let row = sqlx::query_as!(
        Resumption,
        r#"select resumes as count, failures, resumed_at as "at!" from calls where id = $1 and resume_delivery = $2"#,
        id.0,
        delivery
    )
    .fetch_optional(conn)
    .await?;
    Ok(row)
}

/// Claims the right to ask Vapi to take the call, for `claim_s` seconds; `false`: somebody else is asking, or Vapi has
/// the call, or it is over.
pub async fn claim_handover(conn: &mut PgConnection, id: CallId, claim_s: f64) -> Result<bool> {
    let done = sqlx::query!(
        "update calls set handover_at = clock_timestamp()
         where id = $1 and vapi_call_id is null and status <> 'ended'
           and (handover_at is null or handover_at < clock_timestamp() - make_interval(secs => $2))",
        id.0,
        claim_s
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Open calls of which nobody has told anything for `silence_s` seconds, and about which nobody was asked for
/// `pause_s`: those that were asked about longest ago first. Calls in `live` are left out.
pub async fn silent(
    conn: &mut PgConnection,
    silence_s: f64,
    pause_s: f64,
    live: &[CallId],
    limit: i64,
) -> Result<Vec<Call>> {
    let live: Vec<Uuid> = live.iter().map(|id| id.0).collect();
    sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number_id, call_sid, vapi_call_id, from_number, to_number, system_type, pin_reason,
                status, started_at, answered_at, ended_at, end_reason, resumes, usage
         from calls
         where status <> 'ended' and id <> all($3)
           and coalesce(answered_at, started_at) < now() - make_interval(secs => $1)
           and (asked_at is null or asked_at < now() - make_interval(secs => $2))
         order by asked_at nulls first, id limit $4",
        silence_s,
        pause_s,
        &live,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Call::try_from)
    .collect()
}

/// The project's calls from one number to another that are going on.
pub async fn open_between(conn: &mut PgConnection, project: ProjectId, from: &E164, to: &E164) -> Result<Vec<Call>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number_id, call_sid, vapi_call_id, from_number, to_number, system_type, pin_reason,
                status, started_at, answered_at, ended_at, end_reason, resumes, usage
         from calls
         where project_id = $1 and from_number = $2 and to_number = $3 and status <> 'ended' order by id desc limit 10",
        project.0,
        from.as_str(),
        to.as_str()
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Call::try_from)
    .collect()
}

/// Notes whose the call is at Twilio, as far as that is not known yet.
pub async fn set_account(conn: &mut PgConnection, id: CallId, account: &AccountSid) -> Result<()> {
    sqlx::query!("update calls set account_sid = $2 where id = $1 and account_sid is null", id.0, account.as_str())
        .execute(conn)
        .await?;
    Ok(())
}

/// Whose the call is at Twilio. `None`: nobody has said.
pub async fn account(conn: &mut PgConnection, id: CallId) -> Result<Option<AccountSid>> {
    let account = sqlx::query_scalar!("select account_sid from calls where id = $1", id.0).fetch_one(conn).await?;
    optional_text(account.as_deref(), "account SID")
}

/// Notes that a provider was asked about the call.
pub async fn asked(conn: &mut PgConnection, id: CallId) -> Result<()> {
    sqlx::query!("update calls set asked_at = now() where id = $1", id.0).execute(conn).await?;
    Ok(())
}

/// Ends a call, not before it began. The first to end it gives the reason; one that was only guessed gives way to one
/// that is not. `false`: it had ended before. Of several words on when it ended the earliest counts, so that every order
/// of them gives the same: what comes late is not what made it end.
pub async fn end(conn: &mut PgConnection, id: CallId, at: OffsetDateTime, ending: &Ending) -> Result<bool> {
    let (reason, detail) = (ending.reason.as_str(), ending.detail.as_deref().map(super::without_nul));
    let done = sqlx::query!(
        "update calls set
             status = 'ended', end_reason = $3, end_detail = $4, end_guessed = $5,
             ended_at = greatest(started_at, $2),
             answered_at = case when answered_at > $2 then greatest(started_at, $2) else answered_at end
         where id = $1 and status <> 'ended'",
        id.0,
        at,
        reason,
        detail,
        ending.guessed
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(true);
    }
    sqlx::query!(
        "update calls set
             ended_at = greatest(started_at, $2),
             answered_at = case when answered_at > $2 then greatest(started_at, $2) else answered_at end
         where id = $1 and ended_at > $2",
        id.0,
        at
    )
    .execute(&mut *conn)
    .await?;
    if !ending.guessed {
        sqlx::query!(
            "update calls set end_reason = $2, end_detail = $3, end_guessed = false where id = $1 and end_guessed",
            id.0,
            reason,
            detail
        )
        .execute(conn)
        .await?;
    }
    Ok(false)
}
