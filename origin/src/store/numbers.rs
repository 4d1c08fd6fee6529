//! Phone numbers: who answers them, and which system Twilio's calls to them go to.
//!
//! Whoever changes a number locks its agent first; the migration `replication` says why.

use shared::route::VapiHandover;
use shared::{AgentId, E164, NumberId, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, StoreError, text};

/// A phone number of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhoneNumber {
    /// The number's id.
    pub id: NumberId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// The number itself.
    pub number: E164,
    /// Who answers it; `None`: nobody.
    pub agent_id: Option<AgentId>,
    /// Which system answers it.
    pub system_type: SystemType,
    /// How a call for a Vapi agent reaches Vapi from here.
    pub vapi_handover: VapiHandover,
    /// The number's id at Vapi, by which the bypass names it.
    pub vapi_phone_number_id: Option<String>,
    /// Since when it is being given back.
    pub releasing_since: Option<OffsetDateTime>,
    /// Grows with every change of the row.
    pub revision: i64,
}

/// A number as its owner describes it.
#[derive(Clone, Debug)]
pub struct NewNumber<'a> {
    /// Whose it is.
    pub project_id: ProjectId,
    /// The number itself.
    pub number: &'a E164,
    /// Who answers it.
    pub agent_id: AgentId,
    /// How a call for a Vapi agent reaches Vapi from here.
    pub vapi_handover: VapiHandover,
    /// The number's id at Vapi; the bypass needs one.
    pub vapi_phone_number_id: Option<&'a str>,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    number: String,
    agent_id: Option<Uuid>,
    system_type: String,
    vapi_handover: String,
    vapi_phone_number_id: Option<String>,
    releasing_since: Option<OffsetDateTime>,
    revision: i64,
}

impl TryFrom<Row> for PhoneNumber {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: NumberId(row.id),
            project_id: ProjectId(row.project_id),
            number: text(&row.number, "phone number")?,
            agent_id: row.agent_id.map(AgentId),
            system_type: text(&row.system_type, "system type")?,
            vapi_handover: match row.vapi_handover.as_str() {
                "none" => VapiHandover::None,
                "bypass" => VapiHandover::Bypass,
                "redirect" => VapiHandover::Redirect,
                _ => return Err(StoreError::Corrupt("Vapi handover")),
            },
            vapi_phone_number_id: row.vapi_phone_number_id,
            releasing_since: row.releasing_since,
            revision: row.revision,
        })
    }
}

/// The record of a number, whosever it is.
pub async fn by_number(conn: &mut PgConnection, number: &E164) -> Result<Option<PhoneNumber>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, number, agent_id, system_type, vapi_handover, vapi_phone_number_id,
                releasing_since, revision
         from phone_numbers where number = $1",
        number.as_str()
    )
    .fetch_optional(conn)
    .await?
    .map(PhoneNumber::try_from)
    .transpose()
}

/// The numbers that these agents answer, in a fixed order.
pub async fn of_agents(conn: &mut PgConnection, agents: &[AgentId]) -> Result<Vec<PhoneNumber>> {
    let agents: Vec<Uuid> = agents.iter().map(|agent| agent.0).collect();
    sqlx::query_as!(
        Row,
        "select id, project_id, number, agent_id, system_type, vapi_handover, vapi_phone_number_id,
                releasing_since, revision
         from phone_numbers where agent_id = any($1) order by number",
        &agents
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(PhoneNumber::try_from)
    .collect()
}

/// Which of these numbers have a record, whosever they are.
pub async fn known(conn: &mut PgConnection, numbers: &[E164]) -> Result<Vec<E164>> {
    let numbers: Vec<String> = numbers.iter().map(|number| number.as_str().to_owned()).collect();
    let known = sqlx::query_scalar!("select number from phone_numbers where number = any($1)", &numbers);
    known.fetch_all(conn).await?.iter().map(|number| text(number, "phone number")).collect()
}

/// Which numbers to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Answered by this agent.
    pub agent_id: Option<AgentId>,
    /// On this system.
    pub system_type: Option<SystemType>,
    /// Older than this one.
    pub before: Option<NumberId>,
}

/// The project's newest numbers.
pub async fn list(
    conn: &mut PgConnection,
    project: ProjectId,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<PhoneNumber>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, number, agent_id, system_type, vapi_handover, vapi_phone_number_id,
                releasing_since, revision
         from phone_numbers
         where project_id = $1 and ($3::uuid is null or agent_id = $3) and ($4::text is null or system_type = $4)
           and ($5::uuid is null or id < $5)
         order by id desc limit $2",
        project.0,
        limit,
        filter.agent_id.map(|agent| agent.0),
        filter.system_type.map(SystemType::as_str),
        filter.before.map(|before| before.0)
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(PhoneNumber::try_from)
    .collect()
}

/// Sets the system of all numbers of a locked agent.
pub async fn set_system_type(conn: &mut PgConnection, agent: AgentId, target: SystemType) -> Result<()> {
    sqlx::query!(
        "update phone_numbers set system_type = $2 where agent_id = $1 and system_type <> $2",
        agent.0,
        target.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets the system of one number of a locked agent.
pub async fn set_one_system_type(conn: &mut PgConnection, id: NumberId, target: SystemType) -> Result<()> {
    sqlx::query!(
        "update phone_numbers set system_type = $2 where id = $1 and system_type <> $2",
        id.0,
        target.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes the number's id at Vapi. Its agent must be locked.
pub async fn set_vapi_id(conn: &mut PgConnection, number: NumberId, id: Option<&str>) -> Result<()> {
    sqlx::query!("update phone_numbers set vapi_phone_number_id = $2 where id = $1", number.0, id)
        .execute(conn)
        .await?;
    Ok(())
}

/// One number of a project.
pub async fn get(conn: &mut PgConnection, project: ProjectId, id: NumberId) -> Result<Option<PhoneNumber>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, number, agent_id, system_type, vapi_handover, vapi_phone_number_id,
                releasing_since, revision
         from phone_numbers where project_id = $1 and id = $2",
        project.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(PhoneNumber::try_from)
    .transpose()
}

/// The same, locked until the end of the transaction. Its agent must be locked before.
pub async fn lock(conn: &mut PgConnection, project: ProjectId, id: NumberId) -> Result<Option<PhoneNumber>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, number, agent_id, system_type, vapi_handover, vapi_phone_number_id,
                releasing_since, revision
         from phone_numbers where project_id = $1 and id = $2 for no key update",
        project.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(PhoneNumber::try_from)
    .transpose()
}

/// Makes a number that goes straight to Vapi when that answers it, on its agent's system. The agent must be locked.
/// `None`: there is a record of the number, in this project or another.
pub async fn insert(
    conn: &mut PgConnection,
    project: ProjectId,
    agent: AgentId,
    number: &E164,
    vapi_phone_number_id: Option<&str>,
) -> Result<Option<NumberId>> {
    let id = sqlx::query_scalar!(
        "insert into phone_numbers (id, project_id, number, agent_id, vapi_phone_number_id, system_type)
         select $1, $2, $3, $4, $5, a.system_type from agents a where a.id = $4
         on conflict on constraint phone_numbers_number_unique do nothing returning id",
        Uuid::now_v7(),
        project.0,
        number.as_str(),
        agent.0,
        vapi_phone_number_id
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(NumberId))
}

/// Has another agent, on its system, answer the number, or nobody. Both agents must be locked.
pub async fn assign(conn: &mut PgConnection, number: NumberId, to: Option<AgentId>) -> Result<()> {
    sqlx::query!(
        "update phone_numbers set agent_id = $2,
                system_type = coalesce((select a.system_type from agents a where a.id = $2), system_type)
         where id = $1",
        number.0,
        to.map(|agent| agent.0)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a locked number is being given back, or is not after all.
pub async fn set_releasing(conn: &mut PgConnection, number: NumberId, releasing: bool) -> Result<()> {
    sqlx::query!(
        "update phone_numbers set releasing_since = case when $2 then coalesce(releasing_since, clock_timestamp()) end
         where id = $1",
        number.0,
        releasing
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether a call to the number goes on.
pub async fn has_live_calls(conn: &mut PgConnection, number: &PhoneNumber) -> Result<bool> {
    let live = sqlx::query_scalar!(
        r#"select exists (select from calls where status <> 'ended' and (number_id = $1 or to_number = $2)) as "live!""#,
        number.id.0,
        number.number.as_str()
    )
    .fetch_one(conn)
    .await?;
    Ok(live)
}

/// Forgets a number. Its calls stay, with the number in their records.
pub async fn delete(conn: &mut PgConnection, number: NumberId) -> Result<()> {
    sqlx::query!("update calls set number_id = null where number_id = $1", number.0).execute(&mut *conn).await?;
    sqlx::query!("delete from phone_numbers where id = $1", number.0).execute(conn).await?;
    Ok(())
}

/// Makes the number, or describes the project's number anew. `None`: it is another project's. The agent, and the
/// one that answered the number before, must be locked. A new number starts on the system of its agent.
pub async fn put(conn: &mut PgConnection, number: &NewNumber<'_>) -> Result<Option<NumberId>> {
    let id = sqlx::query_scalar!(
        "insert into phone_numbers
             (id, project_id, number, agent_id, vapi_handover, vapi_phone_number_id, system_type)
         select $1, $2, $3, $4, $5, $6, a.system_type from agents a where a.id = $4
         on conflict on constraint phone_numbers_number_unique do update set
             agent_id = excluded.agent_id, vapi_handover = excluded.vapi_handover,
             vapi_phone_number_id = excluded.vapi_phone_number_id, system_type = excluded.system_type
         where phone_numbers.project_id = excluded.project_id
         returning id",
        Uuid::now_v7(),
        number.project_id.0,
        number.number.as_str(),
        number.agent_id.0,
        number.vapi_handover.as_str(),
        number.vapi_phone_number_id
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(NumberId))
}
