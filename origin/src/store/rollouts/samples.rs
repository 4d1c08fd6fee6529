//! The calls that a rollout's guard compares.

use shared::SystemType;
use sqlx::PgConnection;

use super::super::Result;
use super::RolloutId;
use crate::rollout::guard::{Sample, Share};

/// Calls of one agent that count, the newest: one that is called all day does not stand for all.
const CALLS_OF_AN_AGENT: i64 = 200;
/// Calls whose times are compared: more would make no verdict surer.
const TIMES: i64 = 1_000;

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of switched agents, on the rollout's target since they were switched.
    Now,
    /// Of the same agents, on the other system before that.
    Before,
}

/// The calls of one side.
///
/// A call counts for the system that it began on: one that OpenAI Realtime could not have (`pin_reason`) failed there,
/// whoever took it then. Calls count once they are over.
pub async fn sample(
    conn: &mut PgConnection,
    rollout: RolloutId,
    side: Side,
    target: SystemType,
    baseline_days: i32,
    short_call_s: i32,
) -> Result<Sample> {
    let system = match (side, target) {
        (Side::Now, _) => target,
        (Side::Before, SystemType::Vapi) => SystemType::OpenaiRealtime,
        (Side::Before, SystemType::OpenaiRealtime) => SystemType::Vapi,
    };
    let row = sqlx::query!(
        r#"with sampled as (
               select c.*
               from rollout_items i
               join rollouts r on r.id = i.rollout_id
               cross join lateral (
                   select id, answered_at, ended_at, end_reason, told_latency_ms, pin_reason
                   from calls
                   where agent_id = i.agent_id and status = 'ended'
                     and case when pin_reason is null then system_type else 'openai-realtime' end = $3
                     and case when $2 then started_at >= greatest(i.switched_at, r.guard_since)
                              else started_at < i.switched_at and started_at >= i.switched_at - make_interval(days => $4)
                         end
                   order by id desc limit $6
               ) c
               where i.rollout_id = $1 and i.state = 'switched'
           ), judged as (
               select id, told_latency_ms, answered_at is not null as answered,
                      pin_reason is not null or end_reason in ('agent_unavailable', 'vapi_unavailable', 'provider_failed',
                          'system_failed', 'stream_failed', 'carrier_failed') as broken,
                      end_reason = 'caller_hung_up' and ended_at - answered_at < make_interval(secs => $5) as short
               from sampled
           ), tooled as (
               select bool_or(t.outcome = 'failed') as failed
               from judged j join call_tools t on t.call_id = j.id and t.outcome in ('ok', 'failed')
               group by t.call_id
           ), timed as (
               select coalesce(avg(t.first_audio_ms)::float8, max(j.told_latency_ms)::float8) as ms
               from judged j left join call_turns t on t.call_id = j.id
               group by j.id
               having count(t.first_audio_ms) > 0 or max(j.told_latency_ms) is not null
               order by j.id desc limit $7
           )
           select (select count(*) from judged) as "calls!",
                  (select count(*) from judged where broken) as "broken!",
                  (select count(*) from judged where answered and not broken) as "answered!",
                  (select count(*) from judged where answered and not broken and short) as "short!",
                  (select count(*) from tooled) as "tooled!",
                  (select count(*) from tooled where failed) as "failed!",
                  (select coalesce(array_agg(ms), '{}') from timed) as "times!: Vec<f64>""#,
        rollout.0,
        side == Side::Now,
        system.as_str(),
        baseline_days,
        f64::from(short_call_s),
        CALLS_OF_AN_AGENT,
        TIMES
    )
    .fetch_one(conn)
    .await?;
    let share = |bad: i64, of: i64| Share { bad: bad.unsigned_abs(), of: of.unsigned_abs() };
    Ok(Sample {
        setup_failures: share(row.broken, row.calls),
        short_hang_ups: share(row.short, row.answered),
        tool_errors: share(row.failed, row.tooled),
        first_audio_ms: row.times,
    })
}
