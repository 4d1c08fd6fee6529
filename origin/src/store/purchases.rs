//! Purchases of phone numbers, from the intent to the number.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shared::{AgentId, E164, NumberId, ProjectId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Result, StoreError, text};

/// A purchase's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
pub struct PurchaseId(pub Uuid);

impl std::fmt::Display for PurchaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a purchase has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PurchaseState {
    /// Twilio is still to be asked, or its answer never came.
    Intended,
    /// The number is ours.
    Bought,
    /// It is not ours.
    Failed,
}

impl PurchaseState {
    /// The spelling in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Bought => "bought",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for PurchaseState {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        [Self::Intended, Self::Bought, Self::Failed].into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// A purchase.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Purchase {
    /// Its id.
    pub id: PurchaseId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who will answer.
    pub agent_id: AgentId,
    /// The number.
    pub number: E164,
    /// How far it has come.
    pub state: PurchaseState,
    /// Just before Twilio was first asked.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub asked_at: Option<OffsetDateTime>,
    /// The number's record, once it is ours.
    #[schema(required)]
    pub number_id: Option<NumberId>,
    /// Failed attempts.
    pub attempts: i32,
    /// Why the last one failed: a stable word.
    #[schema(required)]
    pub error_code: Option<String>,
    /// The same in a sentence.
    #[schema(required)]
    pub error: Option<String>,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    agent_id: Uuid,
    number: String,
    state: String,
    asked_at: Option<OffsetDateTime>,
    number_id: Option<Uuid>,
    attempts: i32,
    error_code: Option<String>,
    error: Option<String>,
    created_at: OffsetDateTime,
}

impl TryFrom<Row> for Purchase {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: PurchaseId(row.id),
            project_id: ProjectId(row.project_id),
            agent_id: AgentId(row.agent_id),
            number: text(&row.number, "phone number")?,
            state: row.state.parse().map_err(|()| StoreError::Corrupt("state of a purchase"))?,
            asked_at: row.asked_at,
            number_id: row.number_id.map(NumberId),
            attempts: row.attempts,
            error_code: row.error_code,
            error: row.error,
            created_at: row.created_at,
        })
    }
}

/// Keeps the intent to buy a number. `None`: somebody is buying it already.
pub async fn intend(
    conn: &mut PgConnection,
    project: ProjectId,
    agent: AgentId,
    number: &E164,
    actor: &str,
) -> Result<Option<PurchaseId>> {
    let id = sqlx::query_scalar!(
        "insert into purchases (id, project_id, agent_id, number, actor) values ($1, $2, $3, $4, $5)
         on conflict (number) where state = 'intended' do nothing returning id",
        Uuid::now_v7(),
        project.0,
        agent.0,
        number.as_str(),
        actor
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(PurchaseId))
}

/// Whether somebody is buying the number.
pub async fn is_open(conn: &mut PgConnection, number: &E164) -> Result<bool> {
    let open = sqlx::query_scalar!(
        r#"select exists (select from purchases where number = $1 and state = 'intended') as "open!""#,
        number.as_str()
    )
    .fetch_one(conn)
    .await?;
    Ok(open)
}

/// A purchase, whosever it is.
pub async fn get(conn: &mut PgConnection, id: PurchaseId) -> Result<Option<Purchase>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number, state, asked_at, number_id, attempts, error_code, error, created_at
         from purchases where id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Purchase::try_from)
    .transpose()
}

/// The project's newest purchases; of one state, and older than `before`, where that is said.
pub async fn list(
    conn: &mut PgConnection,
    project: ProjectId,
    state: Option<PurchaseState>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Purchase>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, agent_id, number, state, asked_at, number_id, attempts, error_code, error, created_at
         from purchases
         where project_id = $1 and ($3::text is null or state = $3) and ($4::uuid is null or id < $4)
         order by id desc limit $2",
        project.0,
        limit,
        state.map(PurchaseState::as_str),
        before
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Purchase::try_from)
    .collect()
}

/// Takes an open purchase: nobody else gets it for `seconds`. `false`: it is over, or somebody has it.
pub async fn claim(conn: &mut PgConnection, id: PurchaseId, seconds: f64) -> Result<bool> {
    let done = sqlx::query!(
        "update purchases set claimed_until = now() + make_interval(secs => $2)
         where id = $1 and state = 'intended' and (claimed_until is null or claimed_until < now())",
        id.0,
        seconds
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Open purchases that nobody works on and whose time has come.
pub async fn due(conn: &mut PgConnection, limit: i64) -> Result<Vec<PurchaseId>> {
    let ids = sqlx::query_scalar!(
        "select id from purchases
         where state = 'intended' and next_at <= now() and (claimed_until is null or claimed_until < now())
         order by next_at limit $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(PurchaseId).collect())
}

/// Notes that Twilio is about to be asked; the first such moment stands.
pub async fn asked(conn: &mut PgConnection, id: PurchaseId) -> Result<()> {
    sqlx::query!("update purchases set asked_at = coalesce(asked_at, clock_timestamp()) where id = $1", id.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// The number is ours and has a record. `false`: the purchase was over before.
pub async fn bought(conn: &mut PgConnection, id: PurchaseId, number: NumberId) -> Result<bool> {
    let done = sqlx::query!(
        "update purchases set state = 'bought', number_id = $2, finished_at = clock_timestamp(), claimed_until = null,
                error_code = null, error = null
         where id = $1 and state = 'intended'",
        id.0,
        number.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// An attempt came to nothing. Without `retry_seconds` the purchase is over.
pub async fn set_back(
    conn: &mut PgConnection,
    id: PurchaseId,
    code: &str,
    error: &str,
    retry_seconds: Option<f64>,
) -> Result<()> {
    sqlx::query!(
        "update purchases set attempts = attempts + 1, error_code = $2, error = $3, claimed_until = null,
                next_at = now() + make_interval(secs => coalesce($4::float8, 0)),
                state = case when $4::float8 is null then 'failed' else state end,
                finished_at = case when $4::float8 is null then clock_timestamp() end
         where id = $1 and state = 'intended'",
        id.0,
        code,
        super::without_nul(error),
        retry_seconds
    )
    .execute(conn)
    .await?;
    Ok(())
}
