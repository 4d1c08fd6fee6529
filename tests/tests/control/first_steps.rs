//! The README's commands are true: those for an empty database bring a user to an agent that answers, and every one that
//! it shows exists with the options that it shows. What commands change, they log.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use sqlx::query_scalar;
use tests::hosts::Hosts;
use tests::stack::origin::Origin;
use tests::twilio::{Number, Twilio, TwilioOptions};
use tests::vapi::{Vapi, VapiOptions};

use crate::harness::{Database, eventually};
use crate::watch::{unlogged, watch};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The number of the README's example.
const NUMBER: &str = "+15550100";

/// An origin on a database that holds nothing but the schema, between a Twilio and a Vapi.
struct World {
    env: Vec<(String, String)>,
    _origin: Origin,
    twilio: Twilio,
    vapi: Vapi,
    database: Database,
}

impl World {
    async fn start() -> Self {
        let database = Database::empty().await;
        let hosts = Hosts::default();
        let twilio = Twilio::start(TwilioOptions::new(ACCOUNT, TOKEN, hosts.clone())).await.expect("a port");
        let options = VapiOptions { twilio_api_url: Some(twilio.api_url()), ..VapiOptions::new("vapi-key", hosts) };
        let vapi = Vapi::start(options).await.expect("a port");
        let mut env: Vec<(String, String)> = [
            ("DATABASE_URL", database.url.as_str()),
            ("EDGE_URL", "https://edge.tandem.test"),
            ("MEDIA_URL", "wss://origin.tandem.test/media-stream"),
            ("EDGE_ORIGIN_SECRET", "a secret for the tests only"),
            ("OPENAI_API_KEY", "for the tests only"),
            ("TWILIO_ACCOUNT_SID", ACCOUNT),
            ("TWILIO_AUTH_TOKEN", TOKEN),
            ("TWILIO_API_URL", &twilio.api_url()),
            ("VAPI_API_KEY", "vapi-key"),
            ("VAPI_SERVER_SECRET", "for the tests only"),
            ("VAPI_API_URL", &vapi.api_url()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        Origin::command(&["migrate"], &env).await.expect("the schema");
        watch(&database).await;
        let origin = Origin::start(env.clone()).await.expect("an origin");
        env.push(("ORIGIN".to_owned(), origin.base_url()));
        Self { env, _origin: origin, twilio, vapi, database }
    }

    /// Runs a script as somebody would who has `tandem` in their path.
    async fn script(&self, script: &str) -> Output {
        let path = format!("{}:{}", binaries().display(), std::env::var("PATH").unwrap_or_default());
        let mut command = tokio::process::Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).env_clear().env("PATH", path);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true).output().await.expect("bash runs")
    }

    async fn tandem(&self, args: &[&str]) -> String {
        Origin::command(args, &self.env).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().chain(&["--json"]).copied().collect();
        serde_json::from_str(&self.tandem(&all).await).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }
}

/// Where `tandem` is.
fn binaries() -> PathBuf {
    let this = std::env::current_exe().expect("a path");
    this.ancestors().nth(2).expect("the folder above").to_owned()
}

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).expect("the README")
}

/// The commands under a heading.
fn commands_under(heading: &str) -> String {
    let readme = readme();
    let (_, after) = readme.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let (_, block) = after.split_once("```sh\n").expect("commands");
    block.split_once("```").expect("their end").0.to_owned()
}

#[tokio::test]
async fn from_an_empty_database_to_an_agent_that_answers() {
    let world = World::start().await;
    world.twilio.set_number(Number::new(NUMBER).voice_url("https://own.test/voice"));

    let commands = commands_under("From an empty database to an agent that answers");
    let ran = world.script(&format!("{commands}\napi GET agents/$AGENT ''\necho\necho $KEY")).await;

    let (said, complaints) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}\n{complaints}");
    let mut lines = said.lines().rev();
    let (key, agent) = (lines.next().expect("the key"), lines.next().expect("the agent"));
    let agent: Value = serde_json::from_str(agent).expect("an agent");
    assert_eq!((&agent["name"], &agent["systemType"]), (&json!("Reception"), &json!("openai-realtime")), "{said}");
    assert_eq!(agent["numbers"][0]["number"], NUMBER);
    assert_eq!(agent["toolIds"].as_array().map(Vec::len), Some(1));
    assert!(key.starts_with("tdm_"), "{key}");
    eventually("Twilio sends its calls to us", async || {
        let number = world.twilio.number(NUMBER)?;
        (number.setting("VoiceUrl") == Some("https://edge.tandem.test/twilio/voice")).then_some(())
    })
    .await;
    assert_eq!(unlogged(&world.database).await, [""; 0]);
    let mut kinds: Vec<String> = query_scalar("select type from event_log order by position")
        .fetch_all(&mut world.database.connect().await)
        .await
        .expect("the log");
    kinds.retain(|kind| kind != "number.pointed");
    assert_eq!(
        kinds,
        [
            "project.created",
            "api_key.created",
            "tool.created",
            "agent.created",
            "agent.system_type_changed",
            "number.adopted"
        ]
    );
    world.tandem(&["events", "verify"]).await;
}

#[tokio::test]
async fn projects_and_keys_are_made_listed_and_changed_at_the_command_line() {
    let world = World::start().await;
    let fleet = world.json(&["projects", "create", "--name", "Fleet"]).await;
    let other = world.tandem(&["projects", "create", "--name", "Another"]).await;
    let listed = world.json(&["projects", "list"]).await;
    let names: Vec<&Value> = listed["projects"].as_array().expect("projects").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["Another", "Fleet"]);
    assert_eq!(listed["projects"][1], fleet);
    assert_eq!(listed["projects"][0]["id"], other.trim());
    for (args, why) in [
        (["create", "--name", "Fleet"].as_slice(), "another project has this name"),
        (&["create", "--name", " "], "name must be"),
        (&["rename", "--project", "Fleet", "--name", "Another"], "another project has this name"),
        (&["rename", "--project", "Nobody's", "--name", "B"], "there is no project"),
    ] {
        let args: Vec<&str> = ["projects"].iter().chain(args).copied().collect();
        let refused = Origin::output(&args, &world.env).await.expect("tandem runs");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains(why), "{args:?}: {said}");
    }
    world.tandem(&["projects", "rename", "--project", "Fleet", "--name", "Fleet"]).await;
    let renamed = world.json(&["projects", "rename", "--project", "Fleet", "--name", other.trim()]).await;
    assert_eq!((&renamed["id"], &renamed["name"]), (&fleet["id"], &json!(other.trim())));

    // The other project's id is its own, whatever this one is called.
    let made = world.json(&["keys", "create", "--project", other.trim(), "--role", "read"]).await;
    assert!(made["key"].as_str().is_some_and(|key| key.starts_with(made["prefix"].as_str().expect("a prefix"))));
    let keys = world.json(&["keys", "list", "--project", "Another"]).await;
    assert_eq!((&keys["keys"][0]["id"], keys["keys"][0].get("key")), (&made["id"], None));
    let id = made["id"].as_str().expect("an id");
    let revoked = world.json(&["keys", "revoke", "--project", "Another", id]).await;
    assert!(revoked["revokedAt"].is_string(), "{revoked}");

    assert_eq!(unlogged(&world.database).await, [""; 0]);
    let log = "select jsonb_agg(jsonb_build_array(type, actor) order by id) from event_log";
    let log: Value = query_scalar(log).fetch_one(&mut world.database.connect().await).await.expect("the log");
    let by = |kind: &str, command: &str| json!([kind, format!("command:{command}")]);
    assert_eq!(
        log,
        json!([
            by("project.created", "projects create"),
            by("project.created", "projects create"),
            by("project.changed", "projects rename"),
            by("api_key.created", "keys create"),
            by("api_key.revoked", "keys revoke"),
        ])
    );
}

#[tokio::test]
async fn whatever_else_commands_change_is_logged_once() {
    let world = World::start().await;
    let tool = json!({
        "id": "tool-1", "type": "function", "function": { "name": "get_slots", "parameters": { "type": "object" } },
        "server": { "url": "https://tools.clinic.test/slots" },
    });
    world.vapi.add_tool(tool);
    for id in ["assistant-1", "assistant-2"] {
        let model = json!({ "provider": "openai", "model": "gpt-realtime-2", "toolIds": ["tool-1"] });
        let voice = json!({ "provider": "openai", "voiceId": "cedar" });
        world.vapi.add_assistant(json!({ "id": id, "name": id, "model": model, "voice": voice }));
    }
    let events = async || -> i64 {
        let mut conn = world.database.connect().await;
        query_scalar("select count(*) from event_log where actor <> 'origin'")
            .fetch_one(&mut conn)
            .await
            .expect("a count")
    };
    let seed = ["seed", "--vapi-assistant-id", "assistant-9"];
    let import = ["import", "vapi", "--project", "Fleet", "--all", "--accept", "**"];
    world.tandem(&["projects", "create", "--name", "Fleet"]).await;

    world.tandem(&seed).await;
    world.tandem(&import).await;

    assert_eq!(unlogged(&world.database).await, [""; 0]);
    let kinds: Vec<(String, i64)> =
        sqlx::query_as("select type, count(*) from event_log where actor <> 'origin' group by type order by type")
            .fetch_all(&mut world.database.connect().await)
            .await
            .expect("the log");
    let kinds: Vec<(&str, i64)> = kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(
        kinds,
        [
            ("agent.created", 2),
            ("agent.imported", 2),
            ("agent.system_type_changed", 1),
            ("api_key.created", 1),
            ("number.seeded", 2),
            ("project.created", 2),
            ("tool.created", 1),
        ]
    );
    // The same again changes nothing, but for the key that seeding hands out.
    let before = events().await;
    world.tandem(&import).await;
    world.tandem(&seed).await;
    assert_eq!(events().await, before + 1);
    assert_eq!(unlogged(&world.database).await, [""; 0]);
}

/// Every `tandem …` in the README, as far as it is one command with its options.
fn shown(readme: &str) -> BTreeSet<(Vec<String>, Vec<String>)> {
    let mut shown = BTreeSet::new();
    for (at, _) in readme.match_indices("tandem ") {
        if !readme[..at].ends_with(['`', '\n', '(', ' ']) {
            continue;
        }
        let command =
            readme[at + "tandem ".len()..].split(['`', '\n', '#', ';', '|', '&', ')']).next().unwrap_or_default();
        let words: Vec<&str> = command.split_whitespace().collect();
        let is_name = |word: &&&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        let names = words.iter().take_while(is_name).take(2).map(|word| (*word).to_owned()).collect();
        let options = words.iter().map(|word| word.trim_matches(['[', ']'])).filter(|word| word.starts_with("--"));
        shown.insert((names, options.map(str::to_owned).collect()));
    }
    shown
}

#[tokio::test]
async fn every_command_that_the_readme_shows_exists_with_its_options() {
    let shown = shown(&readme());
    assert!(shown.len() > 30, "{shown:?}");
    for (names, options) in &shown {
        let args: Vec<&str> = names.iter().map(String::as_str).chain(["--help"]).collect();
        let help = Origin::output(&args, &[]).await.expect("tandem runs");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.contains(&format!("Usage: tandem {}", names.join(" "))), "{args:?}: {help}");
        for option in options {
            assert!(help.contains(option.as_str()), "`tandem {}` has no {option}", names.join(" "));
        }
    }
}
