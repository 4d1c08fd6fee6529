//! Rollouts: batches of switches, stage by stage, that can be rolled back exactly.
//!
//! A rollout's agents are fixed when it is planned ([`plan`]); from then on it goes its course ([`state`]). What people
//! ask for here only moves that state, in one transaction with its event. The work is the job's ([`work`]) of a running
//! origin: it reads the state, switches one agent in each transaction, and notes in the same one what that agent was
//! before. So it does not matter who is killed when: whoever comes next finds each agent either switched and noted or
//! neither. That is also why the command line does not work itself: it may go, and the API needs somebody who stays.
//!
//! The [`guard`] compares calls and may hold a rollout up or turn it round, but never lets a stage begin: that only
//! people do.

pub mod changes;
pub mod cohort;
pub mod guard;
pub mod plan;
pub mod settings;
pub mod state;
pub mod view;
pub mod work;

use serde_json::{Value, json};
use shared::ProjectId;
use sqlx::PgConnection;

use self::guard::{Finding, Verdict};
use self::settings::OnFail;
use self::state::{Gate, Input, Position, Reason, Refusal, State};
use crate::numbers::pointing;
use crate::store::events::{self, Actor, NewEvent};
use crate::store::rollouts::items::ItemState;
use crate::store::rollouts::samples::{self, Side};
use crate::store::rollouts::{self, Rollout, RolloutId, items, numbers};
use crate::store::{self, StoreError};

/// Why a rollout was not moved.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// There is none, or it is another project's.
    #[error("there is no such rollout")]
    NotFound,
    /// Not now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What somebody asks of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Begin, go on after a pause, or try again what failed.
    Start,
    /// Begin the next stage.
    Advance(Waived),
    /// Switch no further agent.
    Pause,
    /// Switch everything back.
    RollBack,
}

/// What the one who advances does not insist on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waived {
    /// That the guard has enough calls for a verdict.
    pub verdict: bool,
    /// That nothing failed in the stages so far.
    pub failures: bool,
}

/// So many agents are changed only where somebody has said that this is meant.
pub const BULK: usize = 3;

impl Request {
    /// Whether it sets to work on an agent of this stage that stands so. Those that are on the target already need nothing.
    fn concerns(self, rollout: &Rollout, now: ItemState, stage: i32) -> bool {
        let begun = |stages: u16| stage <= i32::from(stages);
        match self {
            Self::Start => matches!(now, ItemState::Planned | ItemState::Failed) && begun(rollout.stage.max(1)),
            Self::Advance(_) => now == ItemState::Planned && begun(rollout.stage + 1),
            Self::RollBack => matches!(now, ItemState::Switched | ItemState::RestoreFailed),
            Self::Pause => false,
        }
    }
}

/// How many agents a request would set to work on, at most.
pub async fn affected(conn: &mut PgConnection, rollout: &Rollout, request: Request) -> store::Result<usize> {
    let counts = items::counts(conn, rollout.id).await?;
    let affected = counts.iter().filter(|count| request.concerns(rollout, count.state, count.stage));
    Ok(affected.map(|count| usize::try_from(count.agents).unwrap_or(0)).sum())
}

/// Whether what failed is tried again where this happens.
fn retries(at: State, input: Input) -> bool {
    match input {
        Input::Start => true,
        Input::RollBack(_) => at == State::RolledBack,
        Input::Advance(_) | Input::Pause(_) | Input::StageDone | Input::RestoreDone => false,
    }
}

/// Moves a rollout within the caller's transaction, which must end soon after. Gives it as it is then, and whether it moved.
pub async fn request(
    conn: &mut PgConnection,
    project: Option<ProjectId>,
    id: RolloutId,
    request: Request,
    actor: &Actor,
) -> Result<(Rollout, bool), RolloutError> {
    let rollout = rollouts::lock(conn, project, id).await?.ok_or(RolloutError::NotFound)?;
    let input = match request {
        Request::Start => Input::Start,
        Request::Advance(waived) => Input::Advance(gate(conn, &rollout, waived).await?),
        Request::Pause => Input::Pause(Reason::Person),
        Request::RollBack => Input::RollBack(Reason::Person),
    };
    let moved = apply(conn, &rollout, input, actor, &json!({})).await?;
    let rollout = rollouts::get(conn, project, id).await?.ok_or(RolloutError::NotFound)?;
    Ok((rollout, moved))
}

/// What speaks for or against a rollout's next stage.
async fn gate(conn: &mut PgConnection, rollout: &Rollout, waived: Waived) -> store::Result<Gate> {
    let failures = view::failures(conn, rollout.id).await?;
    if failures > 0 && !waived.failures {
        return Ok(Gate::Failures(failures));
    }
    if rollout.guard.on_fail == OnFail::Off {
        return Ok(Gate::Open);
    }
    Ok(match guard::overall(&findings(conn, rollout).await?) {
        Verdict::Pass => Gate::Open,
        Verdict::Fail => Gate::Worse,
        Verdict::NotEnoughCalls if waived.verdict => Gate::Open,
        Verdict::NotEnoughCalls => Gate::NotEnoughCalls,
    })
}

/// What the guard finds in the calls of a rollout's switched agents.
pub async fn findings(conn: &mut PgConnection, rollout: &Rollout) -> store::Result<Vec<Finding>> {
    let guard = &rollout.guard;
    let (days, short) = (i32::from(guard.baseline_days), i32::from(guard.short_call_seconds));
    let now = samples::sample(conn, rollout.id, Side::Now, rollout.target, days, short).await?;
    let before = samples::sample(conn, rollout.id, Side::Before, rollout.target, days, short).await?;
    Ok(guard::findings(&now, &before, &guard.tolerate))
}

/// Moves a locked rollout as `input` says, logs that, and has the work done. `false`: it stands there already.
async fn apply(
    conn: &mut PgConnection,
    rollout: &Rollout,
    input: Input,
    actor: &Actor,
    details: &Value,
) -> Result<bool, RolloutError> {
    let from = rollout.position();
    let Some(to) = state::next(from, input)? else { return Ok(false) };
    if retries(from.state, input) {
        let back = to.state == State::RollingBack;
        items::retry(conn, rollout.id, if back { ItemState::RestoreFailed } else { ItemState::Failed }).await?;
        for (number, _) in numbers::failed(conn, rollout.id).await? {
            // Settings that somebody else has made are not overwritten by this either.
            if pointing::retry(conn, number, false, actor).await? {
                numbers::wait_for(conn, rollout.id, number).await?;
            }
        }
    }
    let reason = match input {
        Input::Pause(reason) | Input::RollBack(reason) => Some(reason),
        Input::RestoreDone => rollout.reason,
        Input::Start | Input::Advance(_) | Input::StageDone => None,
    };
    // Whoever starts a paused rollout again has mended something: calls from before do not count any more.
    let guard_anew = from.state == State::Paused && to.state == State::Running;
    rollouts::set_position(conn, rollout.id, to, reason, guard_anew).await?;
    let mut details = details.clone();
    details["rolloutId"] = json!(rollout.id);
    if let Some(reason) = reason {
        details["reason"] = json!(reason);
    }
    for project in items::projects(conn, rollout.id).await? {
        let event = NewEvent {
            before: Some(shown(from)),
            after: Some(shown(to)),
            details: details.clone(),
            ..NewEvent::new(project, event_kind(from, to), actor)
        };
        events::append(conn, &event).await?;
    }
    tracing::info!(rollout_id = %rollout.id, state = to.state.as_str(), stage = to.stage, %actor, "A rollout moved");
    if to.state.is_working() {
        // Last, as it holds a lock that every other caller waits for.
        work::enqueue(conn).await?;
    }
    Ok(true)
}

fn shown(position: Position) -> Value {
    json!({ "state": position.state, "stage": position.stage })
}

fn event_kind(from: Position, to: Position) -> &'static str {
    match to.state {
        State::Planned => "rollout.planned",
        State::Running if to.stage > from.stage => "rollout.stage_started",
        State::Running => "rollout.resumed",
        State::Waiting => "rollout.stage_done",
        State::Paused => "rollout.paused",
        State::Completed => "rollout.completed",
        State::RollingBack => "rollout.rollback_started",
        State::RolledBack => "rollout.rolled_back",
    }
}
