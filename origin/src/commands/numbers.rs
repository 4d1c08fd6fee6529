//! `tandem numbers`: look for numbers, buy them, take them over, give them to agents, give them back.

use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use origin::App;
use origin::numbers::{drift, holding, pointing, purchase};
use origin::providers::twilio::numbers::Search;
use origin::store::events::Actor;
use origin::store::numbers::{self, PhoneNumber};
use origin::store::pointings::Pointing;
use origin::store::projects;
use origin::store::purchases::{self, Purchase, PurchaseState};
use serde_json::{Value, json};
use shared::{AgentId, E164, ProjectId};
use sqlx::Connection as _;

/// As many as a person reads.
const LISTED: i64 = 10_000;

const ACTOR: Actor = Actor::Command("numbers");

#[derive(Debug, Subcommand)]
pub(crate) enum NumbersCommand {
    /// List a project's numbers, and where Twilio sends their calls. Exit code 1 when one is not where it should be.
    List(Where),
    /// Look for numbers that can be bought. Nothing is reserved.
    Search {
        /// Two letters, such as US.
        #[arg(long, default_value = "US")]
        country: String,
        /// What kind of number.
        #[arg(long, value_enum, default_value_t = Kind::Local)]
        kind: Kind,
        /// In the US and Canada.
        #[arg(long)]
        area_code: Option<String>,
        /// Two or more digits or letters that the number holds; `*` is any digit.
        #[arg(long)]
        contains: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Buy this very number for an agent. It costs money from then on. Exit code 1 when it could not be bought (yet).
    Buy {
        #[command(flatten)]
        target: Target,
        /// Yes, buy it.
        #[arg(long, required = true)]
        yes: bool,
    },
    /// List purchases, the newest first.
    Purchases(Where),
    /// Take over a number that is at Twilio already, whether or not Vapi knows it.
    Adopt(Target),
    /// Have another agent answer a number, or nobody.
    Assign {
        #[command(flatten)]
        which: Which,
        /// Who; without it, callers hear that the number is not in service.
        #[arg(long)]
        agent: Option<AgentId>,
    },
    /// Ask once more for what Twilio was to be told about a number, after a conflict or a failure.
    Point {
        #[command(flatten)]
        which: Which,
        /// Overwrite what somebody else has set; it is remembered for the way back to Vapi.
        #[arg(long)]
        overwrite: bool,
    },
    /// Compare our records with Twilio and Vapi; changes nothing. Exit code 1 when something differs.
    Drift {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a number back to Twilio. It cannot be had again for certain. Nobody may answer it or speak on it.
    Release {
        #[command(flatten)]
        which: Which,
        /// The number once more.
        #[arg(long)]
        confirm: E164,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Where {
    /// The project's name or id.
    #[arg(long)]
    project: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Which {
    /// The number, such as +15550100.
    number: E164,
    #[command(flatten)]
    place: Where,
}

#[derive(Args, Debug)]
pub(crate) struct Target {
    #[command(flatten)]
    which: Which,
    /// Who answers it.
    #[arg(long)]
    agent: AgentId,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    Local,
    TollFree,
    Mobile,
    National,
}

impl Kind {
    const fn at_twilio(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::TollFree => "TollFree",
            Self::Mobile => "Mobile",
            Self::National => "National",
        }
    }
}

pub(crate) async fn run(command: NumbersCommand) -> anyhow::Result<ExitCode> {
    let app = super::app().await?;
    match command {
        NumbersCommand::List(place) => list(&app, &place).await,
        NumbersCommand::Search { country, kind, area_code, contains, limit, json } => {
            let search = Search { country, kind: kind.at_twilio(), area_code, contains, limit };
            let found = holding::search(&app, &search).await?;
            if json {
                println!("{}", serde_json::to_string(&found)?);
            } else {
                for offer in &found {
                    let place = [offer.locality.as_deref(), offer.region.as_deref()];
                    let place: Vec<&str> = place.into_iter().flatten().collect();
                    println!("{:16}  {}  {}", offer.number.as_str(), offer.country, place.join(", "));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        NumbersCommand::Buy { target: Target { which, agent }, yes: _ } => {
            let project = project(&app, &which.place).await?;
            let mut tx = app.db.begin().await?;
            let id = purchase::intend(&mut tx, &app.config, project, agent, &which.number, &ACTOR).await?;
            tx.commit().await?;
            let purchase = purchase::carry_out(&app, id).await?;
            show(std::slice::from_ref(&purchase), which.place.json)?;
            Ok(super::exit_code(purchase.state == PurchaseState::Bought))
        }
        NumbersCommand::Purchases(place) => {
            let project = project(&app, &place).await?;
            let all = purchases::list(&mut *app.db.acquire().await?, project, None, None, LISTED).await?;
            show(&all, place.json)?;
            Ok(ExitCode::SUCCESS)
        }
        NumbersCommand::Adopt(Target { which, agent }) => {
            let project = project(&app, &which.place).await?;
            let known = holding::look(&app, &which.number).await?;
            let mut tx = app.db.begin().await?;
            let id = holding::adopt(&mut tx, &app.config, project, agent, &known, &ACTOR).await?;
            tx.commit().await?;
            tell(&which.place, &json!({ "numberId": id, "number": which.number }), "Adopted.")
        }
        NumbersCommand::Assign { which, agent } => {
            let project = project(&app, &which.place).await?;
            let mut conn = app.db.acquire().await?;
            let number = find(&mut conn, project, &which.number).await?;
            let mut tx = conn.begin().await?;
            let after = holding::assign(&mut tx, project, number.id, agent, &ACTOR).await?;
            tx.commit().await?;
            let said = json!({ "numberId": after.id, "agentId": after.agent_id, "systemType": after.system_type });
            tell(&which.place, &said, "Assigned.")
        }
        NumbersCommand::Point { which, overwrite } => {
            let project = project(&app, &which.place).await?;
            let mut conn = app.db.acquire().await?;
            let number = find(&mut conn, project, &which.number).await?;
            let mut tx = conn.begin().await?;
            let number = holding::lock(&mut tx, project, number.id, None).await?;
            holding::point(&mut tx, &number, overwrite, &ACTOR).await?;
            tx.commit().await?;
            tell(&which.place, &json!({ "numberId": number.id }), "A running origin does it now.")
        }
        NumbersCommand::Drift { json } => {
            let findings = drift::check(&app).await?;
            if json {
                println!("{}", serde_json::to_string(&findings)?);
            } else {
                println!("{} numbers checked, {} differ", findings.checked, findings.drifting.len());
                for drifting in &findings.drifting {
                    for difference in &drifting.differences {
                        println!("{:16}  {difference}", drifting.number.as_str());
                    }
                }
                for number in &findings.unknown {
                    println!("{:16}  comes to us and has no record", number.as_str());
                }
            }
            Ok(super::exit_code(findings.drifting.is_empty() && findings.unknown.is_empty()))
        }
        NumbersCommand::Release { which, confirm } => {
            ensure!(confirm == which.number, "--confirm names another number");
            let project = project(&app, &which.place).await?;
            let number = find(&mut *app.db.acquire().await?, project, &which.number).await?;
            holding::release(&app, project, number.id, &ACTOR).await?;
            tell(&which.place, &json!({ "number": which.number }), "Released.")
        }
    }
}

async fn project(app: &App, place: &Where) -> anyhow::Result<ProjectId> {
    let name = &place.project;
    let found = projects::find(&mut *app.db.acquire().await?, name).await?;
    found.with_context(|| format!("there is no project {name:?}"))
}

async fn find(conn: &mut sqlx::PgConnection, project: ProjectId, number: &E164) -> anyhow::Result<PhoneNumber> {
    match numbers::by_number(conn, number).await? {
        Some(found) if found.project_id == project => Ok(found),
        _ => bail!("the project has no number {number}"),
    }
}

fn tell(place: &Where, said: &Value, sentence: &str) -> anyhow::Result<ExitCode> {
    if place.json {
        println!("{}", serde_json::to_string(said)?);
    } else {
        println!("{sentence}");
    }
    Ok(ExitCode::SUCCESS)
}

fn show(purchases: &[Purchase], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(purchases)?);
        return Ok(());
    }
    for purchase in purchases {
        let state = match purchase.state {
            PurchaseState::Intended => "not bought yet",
            PurchaseState::Bought => "bought",
            PurchaseState::Failed => "failed",
        };
        let why = purchase.error.as_deref().unwrap_or_default();
        println!("{:16}  {state:14}  {}  {why}", purchase.number.as_str(), purchase.id);
    }
    Ok(())
}

async fn list(app: &App, place: &Where) -> anyhow::Result<ExitCode> {
    let project = project(app, place).await?;
    let mut conn = app.db.acquire().await?;
    let all = numbers::list(&mut conn, project, &numbers::Filter::default(), LISTED).await?;
    let ids: Vec<_> = all.iter().map(|number| number.id).collect();
    let states = pointing::state_of(&mut conn, &ids).await?;
    let state = |number: &PhoneNumber| states.iter().find(|state| state.number_id == number.id);
    if place.json {
        let shown: Vec<Value> = all.iter().map(|number| body(number, state(number))).collect();
        println!("{}", serde_json::to_string(&shown)?);
    } else {
        for number in &all {
            let (at, how) = state(number).map_or(("-", "-"), |state| (state.place.as_str(), state.state.as_str()));
            let why = state(number).and_then(|state| state.error.as_ref()).map_or("", |(_, text)| text.as_str());
            println!("{:16}  {:15}  {at:4}  {how:8}  {why}", number.number.as_str(), number.system_type.as_str());
        }
    }
    Ok(super::exit_code(states.iter().all(|state| state.state.as_str() == "settled")))
}

fn body(number: &PhoneNumber, pointing: Option<&Pointing>) -> Value {
    json!({
        "id": number.id,
        "number": number.number,
        "agentId": number.agent_id,
        "systemType": number.system_type,
        "vapiPhoneNumberId": number.vapi_phone_number_id,
        "pointing": pointing.map(|pointing| json!({
            "place": pointing.place,
            "state": pointing.state,
            "attempts": pointing.attempts,
            "error": pointing.error.as_ref().map(|(code, detail)| json!({ "code": code, "detail": detail })),
            "found": pointing.found,
            "remembered": pointing.remembered,
        })),
    })
}
