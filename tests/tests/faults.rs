//! Every webhook that was answered 2xx takes effect exactly once, whatever crashes.
//!
//! Twilio and Vapi send mixed events, some twice and some out of order, to the Worker in workerd, while the origin is
//! killed five times and Postgres once. Whatever is left to chance in the sending is the same in every run; where a
//! kill strikes is not.

#[path = "faults/breaker.rs"]
mod breaker;
#[path = "faults/dice.rs"]
mod dice;
#[path = "faults/figures.rs"]
mod figures;
#[path = "faults/plan.rs"]
mod plan;
#[path = "faults/sender.rs"]
mod sender;
#[path = "faults/story.rs"]
mod story;
#[path = "faults/verdict.rs"]
mod verdict;
#[path = "faults/wire.rs"]
mod wire;
#[path = "faults/witness.rs"]
mod witness;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tests::tandem::{ACCOUNT_SID, Options, Tandem};
use time::OffsetDateTime;
use tokio::sync::{Mutex, watch};

use crate::breaker::break_all;
use crate::figures::{Figures, Queue};
use crate::plan::{Plan, Wish};
use crate::sender::{Progress, send_all};
use crate::verdict::faults;
use crate::wire::Parties;
use crate::witness::Witness;

/// How long the queue may take after the last event: what failed three times waits for 50 s in all.
const DRAIN_LIMIT: Duration = Duration::from_mins(4);
/// With an empty queue and nobody sending, nothing can come any more; the edge's log may be so much behind.
const QUIET: Duration = Duration::from_secs(10);
/// How often the database is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// How many faults are told of when a run has failed.
const SHOWN: usize = 20;

/// One run at a time: each keeps the machine busy.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_counts_once_while_the_origin_and_postgres_are_killed() {
    let figures = run(5_000, false).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(figures.queue.kept > 0, "no event met an outage");
    assert_eq!(figures.repeats, 0, "the edge takes every event, be the origin there or not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_counts_once_while_the_queue_refuses_too() {
    let figures = run(5_000, true).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(figures.queue.kept == 0 && figures.queue.refused > 0, "the queue refused no event");
    let others = figures.failures.keys().filter(|status| **status != 503).collect::<Vec<_>>();
    assert!(others.is_empty(), "the edge says that it is unavailable, and nothing else: {others:?}");
}

/// Sends, breaks, waits until nothing is under way any more, and compares.
async fn run(events: usize, queue_refuses: bool) -> anyhow::Result<Figures> {
    let _alone = ALONE.lock().await;
    // A line for each request would only cost time.
    let origin_env = vec![("RUST_LOG".to_owned(), "warn".to_owned())];
    let options = Options { origin_env, own_postgres: true, queue_refuses, ..Options::default() };
    let mut tandem = Tandem::start(options).await?;
    let mut witness = Witness::connect(&tandem.database_url).await?;
    let (reception, night_line) = (tandem.agent("Reception")?.clone(), tandem.agent("Night line")?.clone());
    let parties = Arc::new(Parties {
        account_sid: ACCOUNT_SID.to_owned(),
        assistant_id: witness.assistant_id(&reception.id).await?,
        number: reception.number,
        switched_number: night_line.number,
    });
    let plan = Arc::new(Plan::new(
        events as u64,
        &Wish {
            events,
            // With the queue away as well, every sender waits between its requests.
            outage: if queue_refuses { 48 } else { 150 },
            now: OffsetDateTime::now_utc(),
            switched_at: witness.switched_at(&night_line.id).await?,
        },
    ));
    witness.prepare(&plan, &night_line.id).await?;

    let (progress, so_far) = watch::channel(Progress::default());
    let began = Instant::now();
    let Tandem { hosts, origin, postgres, .. } = &mut tandem;
    let sending = send_all(&plan, &parties, hosts, &progress);
    let (sent, broken) = tokio::join!(sending, break_all(&plan.faults, origin, postgres, so_far));
    broken.context("something could not be broken or mended")?;
    let sending = began.elapsed();

    // The database was killed, and the connection with it.
    let mut witness = Witness::connect(&tandem.database_url).await?;
    let began = Instant::now();
    let drained = drain(&tandem, &plan, &mut witness).await;
    let figures = Figures::new(&plan, &sent, sending, began.elapsed(), Queue::of_log(&tandem.edge.log()));
    println!("{figures}");

    let given_up = sent.iter().filter(|sent| !sent.is_accepted()).collect::<Vec<_>>();
    ensure!(given_up.is_empty(), "never answered 2xx: {:?}", &given_up[..given_up.len().min(SHOWN)]);
    let faults = faults(&plan, &parties, &witness.look().await?);
    let shown = faults[..faults.len().min(SHOWN)].join("\n");
    ensure!(faults.is_empty(), "{} faults:\n{shown}\n{}", faults.len(), tandem.origin.log_tail());
    drained?;
    tandem.stop().await?;
    Ok(figures)
}

/// Waits until every event has been processed and the queue has delivered all that it kept, repeats included.
async fn drain(tandem: &Tandem, plan: &Plan, witness: &mut Witness) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut last = (Instant::now(), 0, Queue::default());
    loop {
        let (processed, queue) = (witness.processed().await?, Queue::of_log(&tandem.edge.log()));
        if processed >= plan.events.len() && queue.is_settled() {
            return Ok(());
        }
        if (processed, queue) != (last.1, last.2) {
            last = (Instant::now(), processed, queue);
        }
        let is_over = queue.is_settled() && last.0.elapsed() > QUIET;
        let all = plan.events.len();
        ensure!(!is_over, "nothing is under way any more, and {processed} of {all} events are processed");
        ensure!(began.elapsed() < DRAIN_LIMIT, "{processed} of {all} events are processed by now; {queue:?}");
        tokio::time::sleep(POLL).await;
    }
}
