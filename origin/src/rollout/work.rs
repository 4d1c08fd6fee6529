//! The work: switches and restores the agents of rollouts, one in each transaction, until nothing is left to do.
//!
//! The job carries nothing. What there is to do is in the tables, so that a job that is late, repeated or lost does no
//! harm, and an agent that fails stops no other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, PgPool};

use super::settings::OnFail;
use super::state::{Input, Reason, State};
use super::{RolloutError, apply, findings, guard};
use crate::config::Systems;
use crate::store::agents;
use crate::store::events::Actor;
use crate::store::rollouts::items::{self, Item, ItemState};
use crate::store::rollouts::numbers;
use crate::store::rollouts::{self, Rollout, RolloutId};
use crate::store::{self, StoreError};
use crate::switching::{self, Image, Missing, SwitchError};
use crate::{App, jobs};

/// How long after its last stage a completed rollout's calls are still compared.
pub const WATCH_DAYS: u32 = 7;

/// Agents of one rollout that are switched before another rollout has its turn.
const SHARE: usize = 10;
/// A run ends after this, and the next one lets the guards look again, as often as if there were nothing to do.
const RUN: Duration = Duration::from_secs(30);
/// How often it is looked how far Twilio has come, in seconds.
const LOOK_EVERY_S: f64 = 1.0;

/// Asks for the work once the caller's transaction is committed. Call it last: it holds a lock, until the transaction
/// ends, that every other caller waits for.
pub async fn enqueue(conn: &mut PgConnection) -> store::Result<()> {
    sqlx::query(
        "select from graphile_worker.add_job(identifier => $1, payload => '{}', queue_name => $1, job_key => $1)",
    )
    .bind(Rollouts::IDENTIFIER)
    .execute(conn)
    .await?;
    Ok(())
}

/// Looks again after a while, when Twilio may have come further.
async fn enqueue_later(conn: &mut PgConnection) -> store::Result<()> {
    sqlx::query(
        "select from graphile_worker.add_job(identifier => $1, payload => '{}', queue_name => $1, job_key => $1,
                                             run_at => now() + make_interval(secs => $2))",
    )
    .bind(Rollouts::IDENTIFIER)
    .bind(LOOK_EVERY_S)
    .execute(conn)
    .await?;
    Ok(())
}

/// The job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Rollouts {}

impl TaskHandler for Rollouts {
    const IDENTIFIER: &'static str = "rollouts";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        let Some(app) = ctx.get_ext::<Arc<App>>() else { return Err("the job has no app".to_owned()) };
        let worker = Worker { db: app.db.clone(), systems: app.config.systems(), twilio: app.config.twilio.is_some() };
        jobs::scope(&ctx, Box::pin(worker.run())).await.map_err(|error| error.to_string())
    }
}

/// What the work is done with.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The truth.
    pub db: PgPool,
    /// What the origin has access to.
    pub systems: Systems,
    /// Whether it has access to Twilio. Where it has not, nobody waits for numbers to be pointed elsewhere.
    pub twilio: bool,
}

/// What came of looking for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Something was done, and there may be more.
    Done,
    /// All is done but at Twilio.
    Waits,
    /// Nothing is left.
    Over,
}

/// Why an agent was not switched, or not switched back.
struct Failure {
    /// One word; part of the API.
    code: &'static str,
    /// A sentence.
    error: String,
}

impl Worker {
    /// Lets the guards look, then does what there is to do, some agents of each rollout in turn.
    pub async fn run(&self) -> Result<(), RolloutError> {
        let begun = Instant::now();
        self.watch_all().await?;
        // Those that nothing more can be done for in this run, and why the last of them failed.
        let (mut resting, mut waits, mut trouble) = (HashSet::new(), false, None);
        loop {
            let working = rollouts::working(&mut *self.acquire().await?).await?;
            let working: Vec<RolloutId> = working.into_iter().filter(|id| !resting.contains(id)).collect();
            if working.is_empty() {
                break;
            }
            for id in working {
                match self.steps(id).await {
                    Ok(Step::Done) => {}
                    Ok(Step::Waits) => waits |= resting.insert(id),
                    Ok(Step::Over) => {
                        resting.insert(id);
                    }
                    // The others go on.
                    Err(error) => {
                        tracing::warn!(rollout_id = %id, error = &error as &dyn std::error::Error,
                                       "A rollout is held up, and tried again");
                        resting.insert(id);
                        trouble = Some(error);
                    }
                }
            }
            if begun.elapsed() >= RUN {
                enqueue(&mut *self.acquire().await?).await?;
                return Ok(());
            }
        }
        if waits {
            enqueue_later(&mut *self.acquire().await?).await?;
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Lets the guards look at the calls of all rollouts that have any to compare.
    async fn watch_all(&self) -> Result<(), RolloutError> {
        let watch_s = f64::from(WATCH_DAYS) * 86_400.0;
        let guarded = rollouts::guarded(&mut *self.acquire().await?, watch_s).await?;
        for id in guarded {
            self.watch(id).await?;
            numbers::sync(&mut *self.acquire().await?, id).await?;
        }
        Ok(())
    }

    /// Does a rollout's share of a round.
    async fn steps(&self, id: RolloutId) -> Result<Step, RolloutError> {
        for _ in 0..SHARE {
            match self.step(id).await? {
                Step::Done => {}
                other => return Ok(other),
            }
        }
        Ok(Step::Done)
    }

    async fn acquire(&self) -> store::Result<sqlx::pool::PoolConnection<sqlx::Postgres>> {
        Ok(self.db.acquire().await?)
    }

    /// Lets the guard of a rollout look at its calls, and does what it is to do when they are worse.
    async fn watch(&self, id: RolloutId) -> Result<(), RolloutError> {
        let mut tx = self.db.begin().await.map_err(StoreError::from)?;
        let Some(rollout) = rollouts::lock(&mut tx, None, id).await? else { return Ok(()) };
        let input = match rollout.guard.on_fail {
            OnFail::Off => return Ok(()),
            OnFail::Pause => Input::Pause(Reason::Guard),
            OnFail::Rollback => Input::RollBack(Reason::Guard),
        };
        // Until the first stage there are no calls to compare.
        if !rollout.state.is_guarded() {
            return Ok(());
        }
        let findings = findings(&mut tx, &rollout).await?;
        if guard::overall(&findings) != guard::Verdict::Fail {
            return Ok(());
        }
        tracing::warn!(rollout_id = %id, "The calls of a rollout's switched agents are worse than before");
        apply(&mut tx, &rollout, input, &Actor::Rollout(id.0), &json!({ "findings": findings })).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// Does the next thing that a rollout needs.
    async fn step(&self, id: RolloutId) -> Result<Step, RolloutError> {
        let mut tx = self.db.begin().await.map_err(StoreError::from)?;
        let Some(rollout) = rollouts::hold(&mut tx, id).await? else { return Ok(Step::Over) };
        let item = match rollout.state {
            State::Running => items::next_planned(&mut tx, id, rollout.stage).await?,
            State::RollingBack => items::next_switched(&mut tx, id).await?,
            _ => return Ok(Step::Over),
        };
        let Some(item) = item else {
            tx.rollback().await.map_err(StoreError::from)?;
            return self.finish(id).await;
        };
        let done = match rollout.state {
            State::Running => self.switch(&mut tx, &rollout, &item).await,
            _ => self.restore(&mut tx, &rollout, &item).await,
        };
        match done {
            Ok(()) => tx.commit().await.map_err(StoreError::from)?,
            // It may be different in a while, for this agent as for the others: the job is tried again.
            Err(error) if error.is_temporary() => return Err(error.into()),
            Err(error) => {
                // The transaction is lost, and so is what it did to the agent.
                drop(tx);
                tracing::error!(rollout_id = %id, agent_id = %item.agent_id, error = &error as &dyn std::error::Error,
                                "An agent of a rollout could not be changed");
                let failure = Failure { code: "internal", error: "the database refused it; see the log".to_owned() };
                let mut tx = self.db.begin().await.map_err(StoreError::from)?;
                fail(&mut tx, &rollout, &item, &failure).await?;
                tx.commit().await.map_err(StoreError::from)?;
            }
        }
        Ok(Step::Done)
    }

    async fn switch(&self, conn: &mut PgConnection, rollout: &Rollout, item: &Item) -> store::Result<()> {
        let (id, agent, actor) = (rollout.id, item.agent_id, Actor::Rollout(rollout.id.0));
        agents::lock(conn, item.project_id, agent).await?;
        numbers::note_before(conn, id, agent).await?;
        match switching::switch(conn, self.systems, item.project_id, agent, rollout.target, &actor).await {
            Ok(switched) if switched.changed => {
                items::switched(conn, id, agent, &store::encode(&switched.before)?).await?;
                numbers::follow(conn, id, agent).await
            }
            Ok(_) => {
                items::unchanged(conn, id, agent).await?;
                numbers::forget(conn, id, agent).await
            }
            Err(error) => {
                fail(conn, rollout, item, &Failure::of(error)?).await?;
                numbers::forget(conn, id, agent).await
            }
        }
    }

    async fn restore(&self, conn: &mut PgConnection, rollout: &Rollout, item: &Item) -> store::Result<()> {
        let (id, agent, actor) = (rollout.id, item.agent_id, Actor::Rollout(rollout.id.0));
        let before: Image = item
            .before
            .clone()
            .and_then(|before| serde_json::from_value(before).ok())
            .ok_or(StoreError::Corrupt("before-image"))?;
        let at_twilio = numbers::before(conn, id, agent).await?;
        match switching::restore(conn, self.systems, item.project_id, agent, &before, &at_twilio, &actor).await {
            Ok(restored) => {
                numbers::follow(conn, id, agent).await?;
                if restored.gone.is_empty() {
                    return items::restored(conn, id, agent).await;
                }
                let gone: Vec<&str> = restored.gone.iter().map(shared::E164::as_str).collect();
                let error = format!("the agent is restored, but no longer answers {}", gone.join(", "));
                fail(conn, rollout, item, &Failure { code: "number_moved", error }).await
            }
            Err(error) => fail(conn, rollout, item, &Failure::of(error)?).await,
        }
    }

    /// Notes that nothing is left to do, unless somebody has asked for something else meanwhile.
    async fn finish(&self, id: RolloutId) -> Result<Step, RolloutError> {
        let mut tx = self.db.begin().await.map_err(StoreError::from)?;
        let Some(rollout) = rollouts::lock(&mut tx, None, id).await? else { return Ok(Step::Over) };
        let (left, input) = match rollout.state {
            State::Running => (items::next_planned(&mut tx, id, rollout.stage).await?, Input::StageDone),
            State::RollingBack => (items::next_switched(&mut tx, id).await?, Input::RestoreDone),
            _ => return Ok(Step::Over),
        };
        if left.is_some() {
            return Ok(Step::Done);
        }
        let pending = numbers::sync(&mut tx, id).await?;
        let over = pending == 0 || !self.twilio;
        if over {
            apply(&mut tx, &rollout, input, &Actor::Rollout(id.0), &json!({})).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        Ok(if over { Step::Over } else { Step::Waits })
    }
}

/// Notes what an agent failed at.
async fn fail(conn: &mut PgConnection, rollout: &Rollout, item: &Item, failure: &Failure) -> store::Result<()> {
    let state = if rollout.state == State::Running { ItemState::Failed } else { ItemState::RestoreFailed };
    items::failed(conn, rollout.id, item.agent_id, state, failure.code, &failure.error).await
}

impl Failure {
    /// What is the agent's own; what is the database's is handed back.
    fn of(error: SwitchError) -> store::Result<Self> {
        match error {
            SwitchError::NotFound => {
                Ok(Self { code: "agent_not_found", error: "there is no such agent any more".to_owned() })
            }
            SwitchError::NotConfigured(missing) => {
                let missing: Vec<&str> = missing.into_iter().map(Missing::as_str).collect();
                Ok(Self { code: "agent_not_configured", error: format!("missing: {}", missing.join(", ")) })
            }
            SwitchError::Store(error) => Err(error),
        }
    }
}
