//! `sim bench-rollout`: how long it takes to switch many agents with their numbers, and back to exactly what was.
//!
//! Real are the origin (`tandem serve` and its commands, as they are deployed) and Postgres. Simulated, in this process,
//! are Twilio, Vapi and Cloudflare's API with its limits (each key once a second, 1,200 requests in five minutes). Twilio
//! and Vapi answer at once unless `--latency-ms` says otherwise; neither limits requests unless `--faults` is given.

mod fleet;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::time::sleep;

use self::fleet::{Fleet, OPENAI, SERVICES, VAPI};
use crate::twilio::Fault;

/// How often it is looked how far everything is.
const POLL: Duration = Duration::from_millis(50);
/// Longer than this nothing takes.
const LIMIT: Duration = Duration::from_mins(15);
/// What Twilio's API does in bad weather: of ten requests it refuses two for their number, and one fails.
const BAD_WEATHER: [Option<Fault>; 10] = [
    None,
    Some(Fault::TooManyRequests),
    None,
    None,
    Some(Fault::ServerError),
    None,
    Some(Fault::TooManyRequests),
    None,
    None,
    None,
];

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// How many agents.
    #[arg(long, default_value_t = 1_000)]
    agents: u32,
    /// How many numbers each of them has.
    #[arg(long, default_value_t = 3)]
    numbers: u32,
    /// How long Twilio's and Vapi's APIs take to answer.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// `TWILIO_CONCURRENCY` of the origin, instead of its own choice.
    #[arg(long)]
    concurrency: Option<u32>,
    /// In the middle of the way out, Twilio answers 429 to two of ten requests and 500 to one; print what an operator
    /// sees.
    #[arg(long)]
    faults: bool,
    /// How long it does that.
    #[arg(long, default_value_t = 20)]
    fault_seconds: u64,
}

/// What follows a command, in the order of [`Fleet::reached`].
const MILESTONES: [&str; 4] = [
    "all agents switched in the database",
    "all keys in the edge's store",
    "all numbers settled at Twilio",
    "the rollout is over",
];

/// One way: how long everything took, since the command that asked for it began.
#[derive(Clone, Copy, Debug, Default)]
struct Leg {
    /// The command that only tells, on its own.
    plan: Duration,
    /// The command that asks has returned.
    asked: Duration,
    reached: [Duration; MILESTONES.len()],
    requests: [usize; SERVICES.len()],
}

/// Measures and prints.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    ensure!(plan.agents > 0 && plan.numbers > 0, "there is nothing to switch");
    let fleet = Fleet::start(&plan).await?;
    let outcome = measure(&plan, &fleet).await.with_context(|| fleet.origin.log_tail());
    fleet.stop().await?;
    outcome
}

async fn measure(plan: &Plan, fleet: &Fleet) -> anyhow::Result<()> {
    let (at_twilio, in_kv) = (fleet.at_twilio(), fleet.in_kv());
    println!(
        "{} agents with {} numbers. Twilio and Vapi (simulated) answer after {} ms; TWILIO_CONCURRENCY {}.",
        plan.agents,
        plan.agents * plan.numbers,
        plan.latency_ms,
        plan.concurrency.map_or_else(|| "as it is by default".to_owned(), |concurrency| concurrency.to_string()),
    );
    println!("{}", fleet.about_postgres().await?);

    let begun = Instant::now();
    let planned = fleet.tandem(&["plan", "--project", "Fleet", "--percent", "100", "--guard", "off", "--json"]).await?;
    let planning = begun.elapsed();
    let planned: Value = serde_json::from_str(&planned)?;
    let id = planned["id"].as_str().context("the rollout's id")?.to_owned();

    let out = async {
        let leg = leg(fleet, &["start", &id, "--yes", "--wait", "0"], OPENAI).await?;
        anyhow::Ok(Leg { plan: planning, ..leg })
    };
    let weather = async { if plan.faults { bad_weather(plan, fleet, &id).await } else { Ok(()) } };
    let (out, ()) = tokio::try_join!(out, weather)?;
    if plan.faults {
        println!("\nAt the end `tandem rollout status` says:\n{}", fleet.status(&id).await?);
    }
    let begun = Instant::now();
    fleet.tandem(&["rollback", &id, "--dry-run", "--json"]).await?;
    let planning = begun.elapsed();
    let back = Leg { plan: planning, ..leg(fleet, &["rollback", &id, "--yes", "--wait", "0"], VAPI).await? };
    print(&out, &back);
    ensure!(fleet.at_twilio() == at_twilio, "Twilio does not have exactly what it had before");
    ensure!(fleet.in_kv() == in_kv, "the edge's store does not have what it had before");
    println!(
        "Twilio has exactly what it had before, and so has the edge's store, but for `revision` and `switchedAt`."
    );
    Ok(())
}

/// Asks for something and waits until everything has followed.
async fn leg(fleet: &Fleet, command: &[&str], system: &str) -> anyhow::Result<Leg> {
    let requests = fleet.requests();
    let begun = Instant::now();
    fleet.tandem(command).await?;
    let mut leg = Leg { asked: begun.elapsed(), ..Leg::default() };
    while leg.reached.iter().any(Duration::is_zero) {
        ensure!(begun.elapsed() < LIMIT, "not done in {} s: {leg:?}", LIMIT.as_secs());
        sleep(POLL).await;
        let reached = fleet.reached(system).await?;
        let now = begun.elapsed();
        for (at, _) in leg.reached.iter_mut().zip(reached).filter(|(at, is_reached)| *is_reached && at.is_zero()) {
            *at = now;
        }
    }
    leg.requests = std::array::from_fn(|at| fleet.requests()[at] - requests[at]);
    Ok(leg)
}

/// Lets Twilio fail for a while once a fifth of the numbers are settled, and shows what an operator sees then.
async fn bad_weather(plan: &Plan, fleet: &Fleet, id: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    while fleet.settled().await? < i64::from(plan.agents * plan.numbers / 5) {
        ensure!(begun.elapsed() < LIMIT, "a fifth of the numbers is not settled");
        sleep(POLL).await;
    }
    fleet.twilio.set_weather(BAD_WEATHER);
    sleep(Duration::from_secs(plan.fault_seconds) / 2).await;
    println!("\nTwilio answers 429 to two of ten requests and 500 to one. `tandem rollout status` says:");
    println!("{}", fleet.status(id).await?);
    sleep(Duration::from_secs(plan.fault_seconds) / 2).await;
    fleet.twilio.set_weather([]);
    Ok(())
}

fn print(out: &Leg, back: &Leg) {
    println!("\n{:<44}{:>10}{:>10}", "seconds since the command began", "out", "back");
    let seconds = |name: &str, out: Duration, back: Duration| {
        println!("{name:<44}{:>10.2}{:>10.2}", out.as_secs_f64(), back.as_secs_f64());
    };
    seconds("plan (back: --dry-run), a command of its own", out.plan, back.plan);
    seconds("start (back: rollback) has asked", out.asked, back.asked);
    for (at, name) in MILESTONES.iter().enumerate() {
        seconds(name, out.reached[at], back.reached[at]);
    }
    for (at, service) in SERVICES.iter().enumerate() {
        println!("{:<44}{:>10}{:>10}", format!("requests to {service}"), out.requests[at], back.requests[at]);
    }
}
