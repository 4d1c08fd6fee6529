//! The audit log. It can be read and added to; the database refuses everything else.
//!
//! The events of a project are a chain, see [`chain`]. An event takes its place in it when its transaction commits.

pub mod chain;

use std::fmt;

use serde_json::Value;
use shared::{AgentId, CallId, NumberId, ProjectId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, StoreError};
use crate::request_id;
use crate::store::events::chain::EventHash;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A program with an API key, named by the key's prefix.
    ApiKey(String),
    /// Somebody at the command line, named by the command.
    Command(&'static str),
    /// A rollout, named by its id; its own events say who asked for it.
    Rollout(Uuid),
    /// The origin itself, on a webhook or a job.
    Origin,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(prefix) => write!(f, "api-key:{prefix}"),
            Self::Command(name) => write!(f, "command:{name}"),
            Self::Rollout(id) => write!(f, "rollout:{id}"),
            Self::Origin => f.write_str("origin"),
        }
    }
}

/// Something that happened, to be logged.
#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    /// Whose it is.
    pub project_id: ProjectId,
    /// A dotted word, such as `agent.system_type_changed`.
    pub kind: &'a str,
    /// Who did it.
    pub actor: &'a Actor,
    /// The agent concerned.
    pub agent_id: Option<AgentId>,
    /// The number concerned.
    pub number_id: Option<NumberId>,
    /// The call concerned.
    pub call_id: Option<CallId>,
    /// The state before a change.
    pub before: Option<Value>,
    /// The state after a change.
    pub after: Option<Value>,
    /// An object with anything else worth knowing. No phone numbers of callers, nothing that was said.
    pub details: Value,
}

impl<'a> NewEvent<'a> {
    /// An event that concerns nothing in particular yet; fill in the rest with `..`.
    pub fn new(project_id: ProjectId, kind: &'a str, actor: &'a Actor) -> Self {
        Self {
            project_id,
            kind,
            actor,
            agent_id: None,
            number_id: None,
            call_id: None,
            before: None,
            after: None,
            details: Value::Object(serde_json::Map::new()),
        }
    }
}

/// Something that was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub id: i64,
    /// A dotted word.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// The agent concerned.
    pub agent_id: Option<AgentId>,
    /// The number concerned.
    pub number_id: Option<NumberId>,
    /// The call concerned.
    pub call_id: Option<CallId>,
    /// The state before a change.
    pub before: Option<Value>,
    /// The state after a change.
    pub after: Option<Value>,
    /// Anything else.
    pub details: Value,
    /// Of the request, job or command that caused it.
    pub request_id: Option<String>,
    /// When it was logged.
    pub at: OffsetDateTime,
    /// Its place in the project's chain.
    pub position: i64,
    /// Covers the event and all before it in the project.
    pub hash: EventHash,
}

/// When an event is logged only once.
#[derive(Clone, Copy)]
enum Once<'a> {
    /// It is always logged.
    Never,
    /// One with this key, ever.
    Ever(&'a str),
    /// One with this key in a minute of the clock.
    InMinute(&'a str),
}

/// Logs an event.
pub async fn append(conn: &mut PgConnection, event: &NewEvent<'_>) -> Result<()> {
    insert(conn, event, Once::Never).await
}

/// Logs an event unless one of this type in the project, and `alike` in what the caller tells them apart by, was logged
/// before: what a sender repeats is logged once.
pub async fn append_once(conn: &mut PgConnection, event: &NewEvent<'_>, alike: &str) -> Result<()> {
    insert(conn, event, Once::Ever(&format!("{} {} {alike}", event.kind, event.project_id))).await
}

/// Logs an event unless one of this type about the agent, and `alike` in what the caller tells them apart by, was logged
/// in the same minute of the clock. It bounds what a sender can make us write.
pub async fn append_once_a_minute(conn: &mut PgConnection, event: &NewEvent<'_>, alike: &str) -> Result<()> {
    let agent = event.agent_id.map(|id| format!(" {id}")).unwrap_or_default();
    insert(conn, event, Once::InMinute(&format!("{} {}{agent} {alike}", event.kind, event.project_id))).await
}

/// The event's place in the chain is given by the database when the transaction commits. The request that is being worked
/// on is known without being told.
async fn insert(conn: &mut PgConnection, event: &NewEvent<'_>, once: Once<'_>) -> Result<()> {
    let (key, in_minute) = match once {
        Once::Never => (None, false),
        Once::Ever(key) => (Some(key), false),
        Once::InMinute(key) => (Some(key), true),
    };
    sqlx::query!(
        r#"insert into event_log (project_id, agent_id, number_id, call_id, type, actor, before, after, details, request_id, at, once)
           select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, moment,
                  $11::text || case when $12 then to_char(moment at time zone 'UTC', ' YYYY-MM-DD"T"HH24:MI') else '' end
           from clock_timestamp() moment
           on conflict (once) do nothing"#,
        event.project_id.0,
        event.agent_id.map(|id| id.0),
        event.number_id.map(|id| id.0),
        event.call_id.map(|id| id.0),
        event.kind,
        event.actor.to_string(),
        event.before,
        event.after,
        event.details,
        request_id::current(),
        key,
        in_minute
    )
    .execute(conn)
    .await?;
    Ok(())
}

struct Row {
    id: i64,
    kind: String,
    actor: String,
    agent_id: Option<Uuid>,
    number_id: Option<Uuid>,
    call_id: Option<Uuid>,
    before: Option<Value>,
    after: Option<Value>,
    details: Value,
    request_id: Option<String>,
    at: OffsetDateTime,
    position: i64,
    hash: Vec<u8>,
}

impl TryFrom<Row> for Event {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            kind: row.kind,
            actor: row.actor,
            agent_id: row.agent_id.map(AgentId),
            number_id: row.number_id.map(NumberId),
            call_id: row.call_id.map(CallId),
            before: row.before,
            after: row.after,
            details: row.details,
            request_id: row.request_id,
            at: row.at,
            position: row.position,
            hash: row.hash.as_slice().try_into()?,
        })
    }
}

/// Which events to list; what is not said does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Concerning this agent.
    pub agent_id: Option<AgentId>,
    /// Concerning this number.
    pub number_id: Option<NumberId>,
    /// Concerning this call.
    pub call_id: Option<CallId>,
    /// Of this type.
    pub kind: Option<String>,
    /// By this actor, or by any whose name begins with this word before the colon.
    pub actor: Option<String>,
    /// Caused by this request, job or command.
    pub request_id: Option<String>,
    /// Logged then or later.
    pub since: Option<OffsetDateTime>,
    /// Logged before.
    pub until: Option<OffsetDateTime>,
}

/// The project's events, the newest first, which is what was committed last; with `before`, those before that position.
pub async fn list(
    conn: &mut PgConnection,
    project: ProjectId,
    filter: &Filter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Event>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, type as kind, actor, agent_id, number_id, call_id, before, after, details, request_id, at,
                  position as "position!", hash as "hash!"
           from event_log
           where project_id = $1 and ($2::bigint is null or position < $2)
             and ($3::uuid is null or agent_id = $3) and ($4::uuid is null or number_id = $4)
             and ($5::uuid is null or call_id = $5) and ($6::text is null or type = $6)
             and ($7::text is null or actor = $7 or split_part(actor, ':', 1) = $7)
             and ($8::text is null or request_id = $8)
             and ($9::timestamptz is null or at >= $9) and ($10::timestamptz is null or at < $10)
           order by position desc limit $11"#,
        project.0,
        before,
        filter.agent_id.map(|id| id.0),
        filter.number_id.map(|id| id.0),
        filter.call_id.map(|id| id.0),
        filter.kind,
        filter.actor,
        filter.request_id,
        filter.since,
        filter.until,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Event::try_from).collect()
}
