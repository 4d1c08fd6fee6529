//! Rollouts from the command line: a real origin does the work, and is killed in the middle of it.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use tests::stack::origin::Origin;

use crate::harness::{Database, eventually};

/// A database with agents that can run on both systems, three numbers each.
struct World {
    env: Vec<(String, String)>,
    conn: tokio::sync::Mutex<PgConnection>,
    // Dropped last, and with it the database.
    _database: Database,
}

/// A command that has ended.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("JSON, not {} {}", self.stdout, self.stderr))
    }
}

impl World {
    async fn with_agents(agents: u32) -> Self {
        let database = Database::migrated().await;
        let env = [
            ("DATABASE_URL", database.url.as_str()),
            ("EDGE_URL", "https://edge.tandem.test"),
            ("MEDIA_URL", "wss://origin.tandem.test/media-stream"),
            ("EDGE_ORIGIN_SECRET", "a secret for the tests only"),
            ("OPENAI_API_KEY", "for the tests only"),
            ("VAPI_API_KEY", "for the tests only"),
            ("VAPI_SERVER_SECRET", "for the tests only"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let world = Self { env, conn: tokio::sync::Mutex::new(database.connect().await), _database: database };
        world
            .execute(&format!(
                "insert into projects (id, name) values ('00000000-0000-0000-0000-00000000aaaa', 'Fleet');
                 insert into agents (id, project_id, name, instructions, realtime, vapi_assistant_id)
                 select md5('agent' || n)::uuid, '00000000-0000-0000-0000-00000000aaaa', 'Agent ' || n, 'Answer.',
                        '{{\"voice\": \"marin\"}}', 'assistant-' || n
                 from generate_series(1, {agents}) n;
                 insert into phone_numbers (id, project_id, number, agent_id)
                 select md5('number' || n || '.' || k)::uuid, '00000000-0000-0000-0000-00000000aaaa',
                        '+1555' || lpad((n * 3 + k)::text, 7, '0'), md5('agent' || n)::uuid
                 from generate_series(1, {agents}) n, generate_series(1, 3) k"
            ))
            .await;
        world
    }

    async fn origin(&self) -> Origin {
        Origin::start(self.env.clone()).await.expect("an origin")
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let all: Vec<&str> = ["rollout"].iter().chain(args).copied().collect();
        let output = Origin::output(&all, &self.env).await.expect("tandem runs");
        Ran {
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Plans a rollout of all agents and gives its id.
    async fn plan(&self, more: &[&str]) -> String {
        let args: Vec<&str> = ["plan", "--project", "Fleet", "--json"].iter().chain(more).copied().collect();
        let ran = self.run(&args).await;
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.json()["id"].as_str().expect("an id").to_owned()
    }

    async fn execute(&self, sql: &str) {
        let mut conn = self.conn.lock().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut *conn)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// One JSON value out of the database.
    async fn value(&self, sql: &str) -> Value {
        let mut conn = self.conn.lock().await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut *conn)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn count(&self, sql: &str) -> i64 {
        self.value(&format!("select to_jsonb(count(*)) {sql}")).await.as_i64().expect("a count")
    }

    /// What a rollout changes in agents and numbers, but for the time of the last switch.
    async fn systems(&self) -> Value {
        self.value(
            "select jsonb_build_object(
                 'agents', (select jsonb_object_agg(id, system_type) from agents),
                 'numbers', (select jsonb_object_agg(number, system_type) from phone_numbers))",
        )
        .await
    }

    async fn on_openai(&self) -> i64 {
        self.count("from agents where system_type = 'openai-realtime'").await
    }

    /// Kills the origin, and makes its last sign of life an old one, which otherwise takes half a minute.
    async fn kill(&self, origin: &mut Origin) {
        origin.kill().await.expect("a dead origin");
        self.execute("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'").await;
    }
}

#[tokio::test]
async fn a_plan_shows_exact_changes_and_makes_none() {
    let world = World::with_agents(40).await;
    world.execute("update agents set realtime = null where name = 'Agent 7'").await;
    let before = world.systems().await;

    let dry = world.run(&["plan", "--project", "Fleet", "--dry-run", "--json"]).await;

    assert_eq!(dry.code, 0, "{}", dry.stderr);
    let plan = &dry.json()["plan"];
    assert_eq!(plan["stages"], json!(["25%", "50%", "100%"]));
    let agents = plan["agents"].as_array().expect("agents");
    assert_eq!(agents.len(), 40);
    let seven = agents.iter().find(|agent| agent["name"] == "Agent 7").expect("the agent");
    assert_eq!(seven["missing"], json!(["realtime"]));
    let other = agents.iter().find(|agent| agent["name"] == "Agent 8").expect("the agent");
    assert_eq!(other["before"]["numbers"][0], json!({"number": "+15550000025", "systemType": "vapi"}));
    assert_eq!(other["after"]["numbers"][0], json!({"number": "+15550000025", "systemType": "openai-realtime"}));
    assert_eq!(world.count("from rollouts").await, 0);
    assert_eq!(world.count("from event_log").await, 0);

    let text = world.run(&["plan", "--project", "Fleet"]).await.stdout;
    assert!(text.contains("40 agents with 120 numbers to openai-realtime; 0 there already, 1 would fail."), "{text}");
    assert!(text.contains("WOULD FAIL, missing: realtime"), "{text}");
    assert_eq!(world.count("from rollouts where state = 'planned'").await, 1);
    assert_eq!(world.systems().await, before);
    assert_eq!(world.count("from event_log where type = 'rollout.planned'").await, 1);
}

#[tokio::test]
async fn what_there_is_not_is_wrong_usage() {
    let world = World::with_agents(1).await;
    let nobody = "00000000-0000-0000-0000-000000000001";
    for args in [
        vec!["plan"],
        vec!["plan", "--project", "Nowhere"],
        vec!["plan", "--agent", nobody],
        vec!["plan", "--all", "--project", "Fleet"],
        vec!["plan", "--project", "Fleet", "--percent", "0"],
        vec!["plan", "--project", "Fleet", "--pilot", nobody],
        vec!["start", nobody],
        vec!["pause", nobody],
        vec!["status", nobody],
        vec!["rollback", nobody, "--yes"],
    ] {
        let ran = world.run(&args).await;
        assert_eq!(ran.code, 2, "{args:?}: {} {}", ran.stdout, ran.stderr);
    }
    assert_eq!(world.count("from rollouts").await, 0);
}

#[tokio::test]
async fn stages_contain_each_other_and_a_rollback_restores_exactly() {
    let world = World::with_agents(60).await;
    // One is there already, one has a number that differs from it.
    world.execute("update agents set system_type = 'openai-realtime' where name = 'Agent 1'").await;
    world
        .execute("update phone_numbers set system_type = 'openai-realtime' where agent_id = md5('agent1')::uuid or number = '+15550000007'")
        .await;
    let before = world.systems().await;
    let id = world.plan(&["--guard", "off"]).await;

    // Bulk wants a yes.
    let asked = world.run(&["start", &id]).await;
    assert_eq!(asked.code, 3, "{}", asked.stderr);
    assert!(asked.stderr.contains("say --yes"), "{}", asked.stderr);
    assert_eq!(world.systems().await, before);

    let _origin = world.origin().await;
    let mut reached: Vec<Value> = Vec::new();
    for (stage, command) in (1..).zip(["start", "advance", "advance"]) {
        let ran = world.run(&[command, &id, "--yes", "--json"]).await;
        assert_eq!(ran.code, if stage == 3 { 0 } else { 3 }, "{} {}", ran.stdout, ran.stderr);
        assert_eq!(ran.json()["rollout"]["stage"], stage);
        let on =
            world.value("select jsonb_agg(id order by id) from agents where system_type = 'openai-realtime'").await;
        let on = on.as_array().expect("agents");
        assert!(reached.iter().all(|agent| on.contains(agent)), "each stage contains the one before");
        assert!(on.len() > reached.len());
        reached.clone_from(on);
        assert_eq!(
            world.count("from phone_numbers n join agents a on a.id = n.agent_id where a.system_type <> n.system_type and n.number <> '+15550000007'").await,
            0
        );
        if stage == 3 {
            assert_eq!(on.len(), 60);
        }
    }
    // One event for each agent that changed, by the rollout.
    let actor = format!("from event_log where type = 'agent.system_type_changed' and actor = 'rollout:{id}'");
    assert_eq!(world.count(&actor).await, 59);

    let ran = world.run(&["rollback", &id, "--yes", "--json"]).await;

    assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
    assert_eq!(world.systems().await, before, "also the number that differed, and the agent that was there already");
    assert_eq!(ran.json()["rollout"]["agents"]["restored"], 59);
    let again = world.run(&["rollback", &id, "--yes"]).await;
    assert_eq!((again.code, world.count(&actor).await), (0, 118), "{} {}", again.stdout, again.stderr);
    let refused = world.run(&["start", &id, "--yes"]).await;
    assert_eq!(refused.code, 1, "{}", refused.stdout);
}

#[tokio::test]
async fn one_that_fails_stops_no_other_and_is_told() {
    let world = World::with_agents(12).await;
    let id = world.plan(&["--percent", "100", "--guard", "off"]).await;
    world.execute("update agents set instructions = '' where name = 'Agent 5'").await;
    let _origin = world.origin().await;

    let ran = world.run(&["start", &id, "--yes", "--json"]).await;

    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let told = ran.json();
    assert_eq!(told["rollout"]["agents"]["switched"], 11);
    assert_eq!(told["agents"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&told["agents"][0]["name"], &told["agents"][0]["errorCode"]),
        (&json!("Agent 5"), &json!("agent_not_configured"))
    );
    let text = world.run(&["status", &id]).await;
    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("failed: agent_not_configured: missing: instructions"), "{}", text.stdout);

    // Mended, and started again: only that one is switched.
    world.execute("update agents set instructions = 'Answer.' where name = 'Agent 5'").await;
    let ran = world.run(&["start", &id, "--yes", "--json"]).await;
    assert_eq!((ran.code, world.on_openai().await), (0, 12), "{}", ran.stdout);
    assert_eq!(world.count("from event_log where type = 'agent.system_type_changed'").await, 12);

    // What cannot be switched back is told, and the others are.
    world.execute("update agents set vapi_assistant_id = null where name = 'Agent 9'").await;
    let ran = world.run(&["rollback", &id, "--yes", "--json"]).await;
    assert_eq!((ran.code, world.on_openai().await), (1, 1), "{}", ran.stdout);
    assert_eq!(ran.json()["agents"][0]["errorCode"], "agent_not_configured");
    assert_eq!(ran.json()["rollout"]["state"], "rolled_back");
    world.execute("update agents set vapi_assistant_id = 'assistant-9' where name = 'Agent 9'").await;
    let ran = world.run(&["rollback", &id, "--yes", "--json"]).await;
    assert_eq!((ran.code, world.on_openai().await), (0, 0), "{}", ran.stdout);
}

#[tokio::test]
async fn killed_in_the_middle_it_converges_both_ways() {
    let world = World::with_agents(400).await;
    let before = world.systems().await;
    let id = world.plan(&["--percent", "100", "--guard", "off"]).await;
    let mut origin = world.origin().await;

    for (command, begun, all) in [("start", 30, 400), ("rollback", 370, 0)] {
        // The command itself may go as well.
        let ran = world.run(&[command, &id, "--yes", "--wait", "0"]).await;
        assert_eq!(ran.code, 3, "{} {}", ran.stdout, ran.stderr);
        eventually("some agents are switched", async || {
            let on = world.on_openai().await;
            (if all > 0 { on > begun } else { on < begun }).then_some(())
        })
        .await;
        world.kill(&mut origin).await;
        let left = world.on_openai().await;
        assert_ne!(left, all, "it was killed in the middle");
        let noted = "from rollout_items i join agents a on a.id = i.agent_id
                     where (a.system_type = 'openai-realtime') <> (i.state = 'switched')";
        assert_eq!(world.count(noted).await, 0, "each agent is switched and noted, or neither");

        origin.start_again().await.expect("an origin");
        let done = eventually("the rollout is done", async || {
            let ran = world.run(&["status", &id, "--json"]).await;
            (ran.code == 0).then_some(ran)
        })
        .await;
        assert_eq!(world.on_openai().await, all, "{}", done.stdout);
        let events = world.count("from event_log where type = 'agent.system_type_changed'").await;
        assert_eq!(events, if all > 0 { 400 } else { 800 }, "each agent was switched once");
    }
    assert_eq!(world.systems().await, before);
}

#[tokio::test]
async fn a_pause_holds_and_a_start_goes_on() {
    let world = World::with_agents(400).await;
    let id = world.plan(&["--percent", "100", "--guard", "off"]).await;
    let _origin = world.origin().await;
    world.run(&["start", &id, "--yes", "--wait", "0"]).await;

    let paused = world.run(&["pause", &id, "--json"]).await;

    assert_eq!((paused.code, &paused.json()["rollout"]["state"]), (0, &json!("paused")), "{}", paused.stdout);
    let held = world.on_openai().await;
    assert!(held < 400, "paused in the middle");
    let status = world.run(&["status", &id]).await;
    assert_eq!((status.code, world.on_openai().await), (3, held), "{}", status.stdout);
    let refused = world.run(&["advance", &id, "--yes"]).await;
    assert_eq!(refused.code, 3, "{}", refused.stdout);
    let done = world.run(&["start", &id, "--yes"]).await;
    assert_eq!((done.code, world.on_openai().await), (0, 400), "{}", done.stdout);
}
