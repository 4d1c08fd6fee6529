//! What calls do outside of their streams, one row a step.

use shared::{AgentId, CallId, CallSid};
use sqlx::PgConnection;

use super::{Result, StoreError, transcript_items};
use crate::steps::Step;

/// A step of a call, with what is needed to go on after it.
#[derive(Clone, Debug, PartialEq)]
pub struct CallStep {
    /// The call.
    pub call_id: CallId,
    /// Who answers it.
    pub agent_id: AgentId,
    /// How often it lost its stream.
    pub resumes: i32,
    /// Which of its steps, counted from 1.
    pub no: i32,
    /// What is to be done.
    pub step: Step,
    /// What came of it; `None`: it is to be done, or under way.
    pub outcome: Option<String>,
}

/// Plans a step. What is planned under its number already stands.
pub async fn plan(conn: &mut PgConnection, call: CallId, no: i32, step: &Step) -> Result<()> {
    let step = serde_json::to_value(step).map_err(|_| StoreError::Corrupt("step"))?;
    sqlx::query!(
        "insert into call_steps (call_id, no, step) values ($1, $2, $3) on conflict do nothing",
        call.0,
        no,
        super::json_without_nul(&step)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A step of the call that Twilio names so: the one with this number, or the last.
pub async fn find(conn: &mut PgConnection, call_sid: &CallSid, no: Option<i32>) -> Result<Option<CallStep>> {
    let row = sqlx::query!(
        "select c.id, c.agent_id, c.resumes, s.no, s.step, s.outcome
         from call_steps s join calls c on c.id = s.call_id
         where c.call_sid = $1 and s.no = coalesce($2, s.no) order by s.no desc limit 1",
        call_sid.as_str(),
        no
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(CallStep {
            call_id: CallId(row.id),
            agent_id: AgentId(row.agent_id),
            resumes: row.resumes,
            no: row.no,
            step: serde_json::from_value(row.step).map_err(|_| StoreError::Corrupt("step"))?,
            outcome: row.outcome,
        })
    })
    .transpose()
}

/// Notes what came of a step, also of one whose plan could not be written yet. `false`: that was noted before.
pub async fn finish(conn: &mut PgConnection, call: CallId, no: i32, step: &Step, outcome: &str) -> Result<bool> {
    let step = serde_json::to_value(step).map_err(|_| StoreError::Corrupt("step"))?;
    let done = sqlx::query!(
        "insert into call_steps (call_id, no, step, outcome) values ($1, $2, $3, $4)
         on conflict (call_id, no) do update set outcome = excluded.outcome where call_steps.outcome is null",
        call.0,
        no,
        super::json_without_nul(&step),
        outcome
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Tells the agent, as the last line of the conversation so far, what came of a step: just before what the next stream
/// will tell.
pub async fn tell(conn: &mut PgConnection, call: CallId, text: &str) -> Result<()> {
    sqlx::query!(
        "insert into transcript_items (call_id, position, role, text)
         select id, (streams + 1) * $3, 'tool', $2 from calls where id = $1
         on conflict do nothing",
        call.0,
        super::without_nul(text),
        transcript_items::PLACES
    )
    .execute(conn)
    .await?;
    Ok(())
}
