//! The numbers of a rollout's agents at Twilio: with which settings they were there before, and what came of theirs.
//!
//! Numbers are pointed elsewhere by `pointings`; here is noted what that means for the rollout. Until it has come to an
//! end there, what stands there counts.

use serde::Serialize;
use shared::{AgentId, E164, NumberId};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::{Result, StoreError, encode, text};
use super::RolloutId;
use crate::providers::twilio::numbers::VoiceSettings;
use crate::store::pointings::Place;

/// Notes where an agent's numbers are before it is switched. The agent must be locked.
pub async fn note_before(conn: &mut PgConnection, rollout: RolloutId, agent: AgentId) -> Result<()> {
    sqlx::query!(
        "insert into rollout_numbers (rollout_id, number_id, agent_id, number, place)
         select $1, n.id, n.agent_id, n.number, p.place
         from phone_numbers n left join pointings p on p.number_id = n.id
         where n.agent_id = $2
         on conflict (rollout_id, number_id) do update set
             agent_id = excluded.agent_id, place = excluded.place, settings = null, seen = false, state = 'none',
             error_code = null, error = null",
        rollout.0,
        agent.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what Twilio says of a number, before anything is written: where it is asked for the first time since a rollout
/// switched the number's agent, that is what the number had before. `None`: settings with which calls come to us, which
/// are no way back to Vapi. Tells whether a rollout that is being rolled back finds the number as it was.
pub async fn note_found(conn: &mut PgConnection, number: NumberId, settings: Option<&VoiceSettings>) -> Result<bool> {
    let rows = sqlx::query_scalar!(
        r#"update rollout_numbers n set seen = true, settings = $2
           from rollouts r
           where n.number_id = $1 and not n.seen and n.state <> 'none' and r.id = n.rollout_id
           returning (r.state = 'rolling_back' and n.place is distinct from 'edge' and n.settings is not null) as "untouched!""#,
        number.0,
        settings.map(encode).transpose()?
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.contains(&true))
}

/// Forgets the numbers of an agent that was not switched after all.
pub async fn forget(conn: &mut PgConnection, rollout: RolloutId, agent: AgentId) -> Result<()> {
    sqlx::query!("delete from rollout_numbers where rollout_id = $1 and agent_id = $2", rollout.0, agent.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Waits anew for the numbers of an agent that was just switched or switched back.
pub async fn follow(conn: &mut PgConnection, rollout: RolloutId, agent: AgentId) -> Result<()> {
    sqlx::query!(
        "update rollout_numbers r set state = p.state, error_code = null, error = null
         from pointings p
         where r.rollout_id = $1 and r.agent_id = $2 and p.number_id = r.number_id",
        rollout.0,
        agent.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Waits anew for these numbers.
pub async fn wait_for(conn: &mut PgConnection, rollout: RolloutId, number: NumberId) -> Result<()> {
    sqlx::query!(
        "update rollout_numbers set state = 'pending', error_code = null, error = null
         where rollout_id = $1 and number_id = $2",
        rollout.0,
        number.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what has come of the numbers. Gives how many are still on their way.
pub async fn sync(conn: &mut PgConnection, rollout: RolloutId) -> Result<u64> {
    sqlx::query!(
        "update rollout_numbers r set state = p.state, error_code = p.error_code, error = p.error
         from pointings p
         where r.rollout_id = $1 and p.number_id = r.number_id and r.state in ('pending', 'conflict', 'failed')
           and (p.state, p.error_code) is distinct from (r.state, r.error_code)",
        rollout.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "update rollout_numbers r set state = 'failed', error_code = 'number_gone', error = 'the number is not ours any more'
         where r.rollout_id = $1 and r.state = 'pending'
           and not exists (select from pointings p where p.number_id = r.number_id)",
        rollout.0
    )
    .execute(&mut *conn)
    .await?;
    let pending = sqlx::query_scalar!(
        r#"select count(*) as "pending!" from rollout_numbers where rollout_id = $1 and state = 'pending'"#,
        rollout.0
    )
    .fetch_one(conn)
    .await?;
    Ok(pending.unsigned_abs())
}

/// The settings at Twilio that the numbers of an agent had before, of those that went straight to Vapi.
pub async fn before(
    conn: &mut PgConnection,
    rollout: RolloutId,
    agent: AgentId,
) -> Result<Vec<(NumberId, VoiceSettings)>> {
    let numbers = of_agents(conn, rollout, &[agent]).await?;
    Ok(numbers.into_iter().filter_map(|number| Some((number.number_id, number.way_back()?))).collect())
}

/// A number of a rollout's agent.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutNumber {
    /// Its record.
    pub number_id: NumberId,
    /// Who answered it.
    pub agent_id: AgentId,
    /// The number.
    pub number: E164,
    /// Where its calls went before; `None`: Twilio had not been told about it.
    pub place: Option<Place>,
    /// With which settings at Twilio; `None`: it was not asked since, or they came to us.
    pub before: Option<VoiceSettings>,
    /// Twilio was asked since its agent was switched.
    pub seen: bool,
    /// What came of it: `none`, `pending`, `settled`, `conflict` or `failed`.
    pub state: String,
    /// Why it failed, in one word.
    pub error_code: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

impl RolloutNumber {
    /// The settings that it is to have again, if its calls went straight to Vapi.
    pub fn way_back(&self) -> Option<VoiceSettings> {
        self.before.clone().filter(|_| self.place != Some(Place::Edge))
    }
}

/// The numbers of these agents of a rollout, as they stand now.
pub async fn of_agents(conn: &mut PgConnection, rollout: RolloutId, agents: &[AgentId]) -> Result<Vec<RolloutNumber>> {
    let agents: Vec<Uuid> = agents.iter().map(|agent| agent.0).collect();
    let rows = sqlx::query!(
        r#"select r.number_id, r.agent_id, r.number, r.place, r.settings, r.seen,
                  case when r.state in ('none', 'settled') then r.state else coalesce(p.state, r.state) end as "state!",
                  case when r.state in ('none', 'settled') then null else coalesce(p.error_code, r.error_code) end as error_code,
                  case when r.state in ('none', 'settled') then null else coalesce(p.error, r.error) end as error
           from rollout_numbers r left join pointings p on p.number_id = r.number_id
           where r.rollout_id = $1 and r.agent_id = any($2) order by r.number"#,
        rollout.0,
        &agents
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let place = row.place.map(|place| place.parse().map_err(|()| StoreError::Corrupt("place of a number")));
            let before = row.settings.map(serde_json::from_value).transpose();
            Ok(RolloutNumber {
                number_id: NumberId(row.number_id),
                agent_id: AgentId(row.agent_id),
                number: text(&row.number, "phone number")?,
                place: place.transpose()?,
                before: before.map_err(|_| StoreError::Corrupt("voice settings"))?,
                seen: row.seen,
                state: row.state,
                error_code: row.error_code,
                error: row.error,
            })
        })
        .collect()
}

/// Numbers that came to a bad end.
pub async fn failed(conn: &mut PgConnection, rollout: RolloutId) -> Result<Vec<(NumberId, E164)>> {
    let rows = sqlx::query!(
        "select number_id, number from rollout_numbers
         where rollout_id = $1 and state in ('conflict', 'failed') order by number_id",
        rollout.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((NumberId(row.number_id), text(&row.number, "phone number")?))).collect()
}

/// Numbers that stand alike.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutNumbers)]
pub struct Group {
    /// `none`, `pending`, `settled`, `conflict` or `failed`.
    pub state: String,
    /// Why, in one word; of pending ones, why the last attempt failed.
    #[schema(required)]
    pub error_code: Option<String>,
    /// The same in a sentence; one of them, where they differ.
    #[schema(required)]
    pub error: Option<String>,
    /// How many.
    pub numbers: i64,
    /// Some of them.
    pub examples: Vec<String>,
    /// In how many seconds the next attempt is made.
    #[schema(required)]
    pub next_attempt_seconds: Option<i64>,
}

/// How the numbers of a rollout stand at Twilio now.
pub async fn groups(conn: &mut PgConnection, rollout: RolloutId) -> Result<Vec<Group>> {
    let groups = sqlx::query_as!(
        Group,
        r#"with now_standing as (
               select r.number, p.next_at,
                      case when r.state = 'none' then 'none' when r.state = 'settled' then 'settled'
                           else coalesce(p.state, r.state) end as state,
                      case when r.state in ('none', 'settled') then null else coalesce(p.error_code, r.error_code) end as error_code,
                      case when r.state in ('none', 'settled') then null else coalesce(p.error, r.error) end as error
               from rollout_numbers r left join pointings p on p.number_id = r.number_id
               where r.rollout_id = $1
           )
           select state as "state!", error_code, max(error) as error, count(*) as "numbers!",
                  (array_agg(number order by number))[1:5] as "examples!",
                  case when state = 'pending' then greatest(0, ceil(extract(epoch from min(next_at) - now())))::bigint end
                      as next_attempt_seconds
           from now_standing group by state, error_code order by state, error_code nulls first"#,
        rollout.0
    )
    .fetch_all(conn)
    .await?;
    Ok(groups)
}
