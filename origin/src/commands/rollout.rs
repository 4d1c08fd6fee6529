//! The command line: `tandem rollout`.
//!
//! Commands say what should be; a running origin does it. They wait and tell of the progress, and may go at any time:
//! the work goes on.

mod print;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use origin::config::Config;
use origin::rollout::changes::{self, Changes};
use origin::rollout::cohort::Stage;
use origin::rollout::guard::Tolerances;
use origin::rollout::plan::{self, PlanError, PlanRequest};
use origin::rollout::settings::{GuardSettings, OnFail};
use origin::rollout::state::State;
use origin::rollout::view::{self, ItemView, RolloutView};
use origin::rollout::{self, BULK, Request, RolloutError, Waived};
use origin::store::events::Actor;
use origin::store::projects;
use origin::store::rollouts::items::ItemState;
use origin::store::rollouts::{self, RolloutId, Scope};
use serde_json::json;
use shared::{AgentId, SystemType};
use sqlx::{Connection as _, PgConnection};

/// How often the progress is looked at.
const POLL: Duration = Duration::from_millis(500);
/// Without progress for so long, there is probably nobody to make any.
const STILL: Duration = Duration::from_secs(15);
/// Agents that are read at a time.
const PAGE: i64 = 1_000;

/// Done.
const DONE: u8 = 0;
/// Something failed.
const FAILED: u8 = 1;
/// Asked for something that there is not.
const USAGE: u8 = 2;
/// A person must decide or wait.
const WAITING: u8 = 3;

#[derive(Debug, Subcommand)]
#[command(after_help = "Exit codes:
  0  done: what was asked for is so
  1  something failed: see the agents listed
  2  wrong usage, or no such rollout
  3  waiting for a person: for --yes, for the next stage, or after a pause

A running origin does the work; these commands ask for it, wait and tell. They may be stopped
at any time: the work goes on.")]
pub(crate) enum RolloutCommand {
    /// Choose agents and show exactly what would change; recorded to be started, unless --dry-run.
    Plan(PlanArgs),
    /// Switch the first stage; also goes on after a pause, and tries again what failed.
    Start(StepArgs),
    /// Switch the next stage, if the guard found the calls no worse.
    Advance {
        #[command(flatten)]
        step: StepArgs,
        /// Advance although the guard has not enough calls for a verdict.
        #[arg(long)]
        without_verdict: bool,
        /// Advance although something failed in the stages so far.
        #[arg(long)]
        despite_failures: bool,
    },
    /// Switch no further agent; those switched stay.
    Pause(OneArgs),
    /// Tell how a rollout stands, or list the newest ones.
    Status {
        /// The rollout; without it, all of them.
        id: Option<RolloutId>,
        /// List every agent, not only those that failed.
        #[arg(long)]
        agents: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Switch every agent back to exactly what it was.
    Rollback(StepArgs),
}

/// What to roll out.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// An agent; may be repeated.
    #[arg(long = "agent", value_name = "ID", required_unless_present_any = ["project", "all"], conflicts_with = "all")]
    agents: Vec<AgentId>,
    /// All agents of a project, by name or id.
    #[arg(long, value_name = "NAME|ID", conflicts_with_all = ["all", "agents"])]
    project: Option<String>,
    /// All agents of all projects.
    #[arg(long)]
    all: bool,
    /// The system that they go to: openai-realtime or vapi.
    #[arg(long, value_name = "SYSTEM", default_value = "openai-realtime")]
    to: SystemType,
    /// The stages, in per cent of the agents. An agent's place is fixed by its id, so that 25 % are among the 50 %. Named
    /// agents go in one stage, unless this says otherwise.
    #[arg(long, value_name = "PER CENT", value_delimiter = ',')]
    percent: Vec<Stage>,
    /// An agent that goes first, alone; one or two.
    #[arg(long = "pilot", value_name = "ID")]
    pilots: Vec<AgentId>,
    /// What follows when the calls of switched agents are worse than their calls before.
    #[arg(long, value_name = "pause|rollback|off", default_value = "pause", value_parser = on_fail)]
    guard: OnFail,
    /// By how much a measure may be worse: setupFailures, shortHangUps and toolErrors in percentage points,
    /// firstAudioMs in milliseconds; may be repeated.
    #[arg(long, value_name = "MEASURE=NUMBER", value_parser = tolerance)]
    tolerate: Vec<(String, f64)>,
    /// How many days before its switch an agent's calls are compared with.
    #[arg(long, value_name = "DAYS", default_value_t = GuardSettings::default().baseline_days, value_parser = clap::value_parser!(u16).range(1..=365))]
    baseline_days: u16,
    /// Show what would change, and record nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A rollout.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// The rollout.
    id: RolloutId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A rollout to be moved.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Show what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needed for more than two agents where nobody can be asked.
    #[arg(long)]
    yes: bool,
    /// How many seconds to wait for it; the work goes on afterwards.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    wait: u64,
}

fn on_fail(word: &str) -> Result<OnFail, String> {
    match word {
        "pause" => Ok(OnFail::Pause),
        "rollback" => Ok(OnFail::Rollback),
        "off" => Ok(OnFail::Off),
        _ => Err("it is pause, rollback or off".to_owned()),
    }
}

fn tolerance(text: &str) -> Result<(String, f64), String> {
    let (measure, number) = text.split_once('=').ok_or("it is MEASURE=NUMBER")?;
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    if !number.is_finite() || number < 0.0 {
        return Err("what is tolerated is not negative".to_owned());
    }
    set_tolerance(&mut Tolerances::default(), measure, number)?;
    Ok((measure.to_owned(), number))
}

fn set_tolerance(tolerances: &mut Tolerances, measure: &str, number: f64) -> Result<(), String> {
    match measure {
        "setupFailures" => tolerances.setup_failures = number,
        "shortHangUps" => tolerances.short_hang_ups = number,
        "toolErrors" => tolerances.tool_errors = number,
        "firstAudioMs" => tolerances.first_audio_ms = number,
        _ => return Err("the measures are setupFailures, shortHangUps, toolErrors and firstAudioMs".to_owned()),
    }
    Ok(())
}

pub(crate) async fn run(command: RolloutCommand) -> anyhow::Result<ExitCode> {
    let app = super::app().await?;
    let config = &app.config;
    // One connection: the command may be run where the origin's are all in use.
    let mut conn = app.db.acquire().await.context("the database cannot be reached")?.detach();
    let code = match command {
        RolloutCommand::Plan(args) => plan(&mut conn, config, args).await?,
        RolloutCommand::Start(step) => move_on(&mut conn, config, &step, Request::Start).await?,
        RolloutCommand::Advance { step, without_verdict, despite_failures } => {
            let waived = Waived { verdict: without_verdict, failures: despite_failures };
            move_on(&mut conn, config, &step, Request::Advance(waived)).await?
        }
        RolloutCommand::Pause(one) => pause(&mut conn, &one).await?,
        RolloutCommand::Status { id: Some(id), agents, json } => status(&mut conn, id, agents, json).await?,
        RolloutCommand::Status { id: None, json, .. } => overview(&mut conn, json).await?,
        RolloutCommand::Rollback(step) => move_on(&mut conn, config, &step, Request::RollBack).await?,
    };
    Ok(ExitCode::from(code))
}

fn usage(sentence: &str) -> u8 {
    eprintln!("tandem: {sentence}");
    USAGE
}

async fn plan(conn: &mut PgConnection, config: &Config, args: PlanArgs) -> anyhow::Result<u8> {
    let named = !args.agents.is_empty();
    let scope = match &args.project {
        Some(project) => match projects::find(conn, project).await? {
            Some(id) => Scope::Project(id),
            None => return Ok(usage(&format!("there is no project {project:?}"))),
        },
        None if args.all => Scope::All,
        None => Scope::Agents(args.agents),
    };
    let mut stages = args.percent;
    if stages.contains(&Stage::Pilot) {
        return Ok(usage("pilots are named with --pilot"));
    }
    if stages.is_empty() {
        stages = if named { vec![Stage::Percent(100)] } else { [25, 50, 100].map(Stage::Percent).to_vec() };
    }
    let mut tolerate = Tolerances::default();
    for (measure, number) in &args.tolerate {
        set_tolerance(&mut tolerate, measure, *number).map_err(anyhow::Error::msg)?;
    }
    let guard =
        GuardSettings { on_fail: args.guard, baseline_days: args.baseline_days, tolerate, ..GuardSettings::default() };
    let request = PlanRequest { scope, within: None, target: args.to, stages, pilots: args.pilots, guard };

    let mut tx = conn.begin().await?;
    let plan = match plan::plan(&mut tx, config, &request).await {
        Ok(plan) => plan,
        Err(PlanError::Store(error)) => return Err(error.into()),
        Err(error) => return Ok(usage(&error.to_string())),
    };
    let id = if args.dry_run {
        None
    } else {
        Some(plan::record(&mut tx, &request.scope, &plan, &Actor::Command("rollout plan")).await?)
    };
    tx.commit().await?;
    if args.json {
        println!("{:#}", json!({ "id": id, "dryRun": args.dry_run, "plan": plan }));
    } else {
        print!("{}", print::plan(&plan, id));
    }
    Ok(DONE)
}

async fn move_on(conn: &mut PgConnection, config: &Config, step: &StepArgs, request: Request) -> anyhow::Result<u8> {
    let id = step.one.id;
    let Some(rollout) = rollouts::get(conn, None, id).await? else {
        return Ok(usage(&format!("there is no rollout {id}")));
    };
    let changes = changes::preview(conn, config, &rollout, request).await?;
    if step.dry_run {
        if step.one.json {
            println!("{:#}", json!({ "id": id, "dryRun": true, "changes": changes }));
        } else {
            print!("{}", print::changes(&changes));
        }
        return Ok(DONE);
    }
    if changes.agents() >= BULK && !step.yes && !confirmed(&changes)? {
        return Ok(WAITING);
    }
    let mut tx = conn.begin().await?;
    let actor = Actor::Command(match request {
        Request::Start => "rollout start",
        Request::Advance(_) => "rollout advance",
        Request::Pause => "rollout pause",
        Request::RollBack => "rollout rollback",
    });
    match rollout::request(&mut tx, None, id, request, &actor).await {
        Ok(_) => tx.commit().await?,
        Err(RolloutError::Refused(refusal)) => {
            drop(tx);
            let view = shown(conn, id).await?;
            let code = if refusal.needs_a_person() { WAITING } else { FAILED };
            report(conn, &view, step.one.json, Some(&refusal.to_string()), code).await?;
            return Ok(code);
        }
        Err(error) => return Err(error.into()),
    }
    let view = wait(conn, id, Duration::from_secs(step.wait)).await?;
    let code = exit_code(&view);
    let late = view.state.is_working().then(|| format!("not done after {} s; the work goes on", step.wait));
    report(conn, &view, step.one.json, late.as_deref(), code).await?;
    Ok(code)
}

/// Asks at the terminal. Where nobody can be asked, the answer is no.
fn confirmed(changes: &Changes) -> anyhow::Result<bool> {
    eprint!("{}", print::changes(changes));
    if !io::stdin().is_terminal() {
        eprintln!("Nothing was changed. This is bulk: say --yes.");
        return Ok(false);
    }
    eprint!("Go on? Type yes: ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    let yes = answer.trim() == "yes";
    if !yes {
        eprintln!("Nothing was changed.");
    }
    Ok(yes)
}

/// Waits until no work is left or the time is over, and tells of the progress.
async fn wait(conn: &mut PgConnection, id: RolloutId, limit: Duration) -> anyhow::Result<RolloutView> {
    let begun = Instant::now();
    let (mut last, mut since) = (String::new(), Instant::now());
    let mut warned = false;
    loop {
        let view = shown(conn, id).await?;
        if !view.state.is_working() || begun.elapsed() >= limit {
            return Ok(view);
        }
        let progress = print::progress(&view);
        if progress != last {
            eprintln!("{progress}");
            (last, since, warned) = (progress, Instant::now(), false);
        } else if since.elapsed() >= STILL && !warned {
            eprintln!(
                "No progress for {} s. Is an origin running? The work begins or goes on when one is.",
                STILL.as_secs()
            );
            warned = true;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn shown(conn: &mut PgConnection, id: RolloutId) -> anyhow::Result<RolloutView> {
    let rollout = rollouts::get(conn, None, id).await?.context("the rollout is gone")?;
    Ok(view::show(conn, rollout).await?)
}

async fn pause(conn: &mut PgConnection, one: &OneArgs) -> anyhow::Result<u8> {
    let mut tx = conn.begin().await?;
    match rollout::request(&mut tx, None, one.id, Request::Pause, &Actor::Command("rollout pause")).await {
        Ok(_) => tx.commit().await?,
        Err(RolloutError::NotFound) => return Ok(usage(&format!("there is no rollout {}", one.id))),
        Err(RolloutError::Refused(refusal)) => {
            drop(tx);
            let view = shown(conn, one.id).await?;
            report(conn, &view, one.json, Some(&refusal.to_string()), FAILED).await?;
            return Ok(FAILED);
        }
        Err(error) => return Err(error.into()),
    }
    let view = shown(conn, one.id).await?;
    // What was asked for is so.
    report(conn, &view, one.json, None, DONE).await?;
    Ok(DONE)
}

async fn status(conn: &mut PgConnection, id: RolloutId, all: bool, json: bool) -> anyhow::Result<u8> {
    let Some(rollout) = rollouts::get(conn, None, id).await? else {
        return Ok(usage(&format!("there is no rollout {id}")));
    };
    let view = view::show(conn, rollout).await?;
    let code = exit_code(&view);
    let agents = if all { listed(conn, id, None).await? } else { failed(conn, id).await? };
    print_view(&view, &agents, json, None, code);
    Ok(code)
}

async fn overview(conn: &mut PgConnection, json: bool) -> anyhow::Result<u8> {
    let mut views = Vec::new();
    for rollout in rollouts::list(conn, None, None, None, 50).await? {
        views.push(view::show(conn, rollout).await?);
    }
    if json {
        println!("{:#}", json!({ "rollouts": views }));
    } else if views.is_empty() {
        println!("There is no rollout.");
    } else {
        for view in &views {
            println!("{}", print::line(view));
        }
    }
    Ok(DONE)
}

/// Prints how a rollout stands, with the agents that failed.
async fn report(
    conn: &mut PgConnection,
    view: &RolloutView,
    json: bool,
    note: Option<&str>,
    code: u8,
) -> anyhow::Result<()> {
    let agents = failed(conn, view.id).await?;
    print_view(view, &agents, json, note, code);
    Ok(())
}

fn print_view(view: &RolloutView, agents: &[ItemView], json: bool, note: Option<&str>, code: u8) {
    if json {
        println!("{:#}", json!({ "exitCode": code, "note": note, "rollout": view, "agents": agents }));
    } else {
        print!("{}", print::status(view, agents, note));
    }
}

async fn failed(conn: &mut PgConnection, id: RolloutId) -> anyhow::Result<Vec<ItemView>> {
    let mut agents = listed(conn, id, Some(ItemState::Failed)).await?;
    agents.extend(listed(conn, id, Some(ItemState::RestoreFailed)).await?);
    Ok(agents)
}

async fn listed(conn: &mut PgConnection, id: RolloutId, state: Option<ItemState>) -> anyhow::Result<Vec<ItemView>> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = view::agents(conn, id, state, after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        after = *last;
        all.extend(page.into_iter().map(|(_, agent)| agent));
    }
}

/// What a program should think of it.
fn exit_code(view: &RolloutView) -> u8 {
    if view.failures() > 0 {
        return FAILED;
    }
    match view.state {
        State::Completed | State::RolledBack => DONE,
        State::Planned | State::Waiting | State::Paused | State::Running | State::RollingBack => WAITING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_are_of_known_measures() {
        assert_eq!(tolerance("firstAudioMs=250"), Ok(("firstAudioMs".to_owned(), 250.0)));
        for wrong in ["firstAudioMs", "firstAudioMs=", "firstAudioMs=-1", "firstAudioMs=NaN", "cost=1"] {
            assert!(tolerance(wrong).is_err(), "{wrong}");
        }
    }
}
