//! A database that notes every change which no event tells of, and what jobs do under its eyes.
//!
//! It looks at transactions: one that changes what a project owns must log an event, with a request id and with what was
//! or is. It knows of no operation, job or command; a table or column that is new is watched until it is said here why
//! not.

use serde_json::{Value, json};
use shared::AgentId;
use sqlx::{AssertSqlSafe, Executor as _, query_scalar};
use tests::twilio::Number;

use crate::harness::{Database, eventually};
use crate::pointing::World;

/// Tables of what nobody owns, or nobody asks the control plane to change.
const NOT_WATCHED: [&str; 18] = [
    "_sqlx_migrations",
    "unlogged",
    // The log itself.
    "event_heads",
    "event_log",
    // What happened on the phone, and on the way to us.
    "call_steps",
    "call_tools",
    "call_turns",
    "calls",
    "recordings",
    "tool_runs",
    "transcript_items",
    "used_stream_tokens",
    "webhook_inbox",
    // What follows from the rest, and what was said of it.
    "idempotency_keys",
    "replica",
    "vapi_imports",
    // How far a rollout's switches are; they are changes of agents, and logged as such.
    "rollout_items",
    "rollout_numbers",
];

/// Columns that say how far something is, or how it was found.
const NOT_WATCHED_COLUMNS: [(&str, &str); 7] = [
    ("agents", "revision revised_at"),
    ("api_keys", "last_used_at"),
    ("phone_numbers", "revision revised_at"),
    (
        "pointings",
        "account_sid twilio_sid requested_at settled_at remembered ours assistant_id vapi_saved found found_at attempts \
         next_at error_code error claimed_until drift checked_at",
    ),
    ("projects", "revision"),
    ("purchases", "asked_at attempts next_at error_code error claimed_until"),
    ("tools", "revision imported_draft"),
];

/// `$columns` stand for themselves in the trigger's argument.
const WATCH: &str = "
    create table unlogged (what text not null);

    create function note_event() returns trigger language plpgsql as $$
    begin
        if new.request_id is not null and (new.before is not null or new.after is not null) then
            perform set_config('tests.logged', 'yes', true);
        end if;
        return null;
    end;
    $$;
    create trigger noted after insert on event_log for each row execute function note_event();

    create function must_be_logged() returns trigger language plpgsql as $$
    declare
        ignored text[] := string_to_array(coalesce(tg_argv[0], ''), ' ');
        was jsonb := to_jsonb(old) - ignored;
        is_now jsonb := to_jsonb(new) - ignored;
    begin
        -- That all is as it was asked for is no change.
        if tg_table_name = 'pointings' and is_now ->> 'state' = 'settled' then
            was := was - 'state';
            is_now := is_now - 'state';
        end if;
        if was is distinct from is_now and current_setting('tests.logged', true) is distinct from 'yes' then
            insert into unlogged values (format('%s of %s: %s to %s', tg_op, tg_table_name, was, is_now));
        end if;
        return null;
    end;
    $$;";

/// Watches from now on.
pub(crate) async fn watch(database: &Database) {
    let mut conn = database.connect().await;
    conn.execute(WATCH).await.expect("the watch is set");
    let tables: Vec<String> = query_scalar("select tablename::text from pg_tables where schemaname = 'public'")
        .fetch_all(&mut conn)
        .await
        .expect("the tables");
    let gone: Vec<_> = NOT_WATCHED.iter().filter(|name| !tables.iter().any(|table| table == *name)).collect();
    assert!(gone.is_empty(), "there are no tables {gone:?} any more");
    for table in tables.iter().filter(|table| !NOT_WATCHED.contains(&table.as_str())) {
        let columns = NOT_WATCHED_COLUMNS.iter().find(|(name, _)| name == table).map_or("", |(_, columns)| columns);
        // At the commit: whether the event or the change comes first does not matter.
        let trigger = format!(
            "create constraint trigger watched after insert or update or delete on {table}
             deferrable initially deferred for each row execute function must_be_logged('{columns}')"
        );
        conn.execute(AssertSqlSafe(trigger)).await.expect("the table is watched");
    }
}

/// What was changed without an event since then.
pub(crate) async fn unlogged(database: &Database) -> Vec<String> {
    let mut conn = database.connect().await;
    query_scalar("select what from unlogged").fetch_all(&mut conn).await.expect("what was noted")
}

#[tokio::test]
async fn a_change_without_an_event_is_noticed() {
    let database = Database::migrated().await;
    watch(&database).await;
    let mut conn = database.connect().await;
    for (change, noticed) in [
        ("insert into projects (id, name) values (gen_random_uuid(), 'A')", true),
        ("update projects set name = 'B'", true),
        ("update projects set name = 'B'", false),
        (
            "begin; update projects set name = 'C'; insert into event_log (project_id, type, actor, after, request_id)
             select id, 't', 'origin', '{}', 'r' from projects; commit",
            false,
        ),
        (
            "begin; insert into event_log (project_id, type, actor, after)
             select id, 't', 'origin', '{}' from projects; update projects set name = 'D'; commit",
            true,
        ),
        (
            "begin; update projects set name = 'E'; insert into event_log (project_id, type, actor, request_id)
             select id, 't', 'origin', 'r' from projects; commit",
            true,
        ),
        ("update projects set revision = 12", false),
    ] {
        conn.execute(AssertSqlSafe(change.to_owned())).await.unwrap_or_else(|error| panic!("{change}: {error}"));
        assert_eq!(!unlogged(&database).await.is_empty(), noticed, "{change}");
        conn.execute("delete from unlogged").await.expect("it is forgotten");
    }
}

/// Numbers that are bought, pointed, told to Vapi, refused and given back, and rollouts there and back.
#[tokio::test]
async fn everything_that_jobs_change_is_logged() {
    let world = World::start().await;
    let origin = &world.origin;
    watch(&origin.database).await;
    let jobs = origin.run_jobs();

    for agent in [origin.night_line, origin.reception] {
        let offers = origin.get(&origin.key, "/api/numbers/available").await.body;
        let wanted = json!({ "number": offers["items"][0]["number"], "agentId": agent });
        let purchase = post(&world, "/api/numbers", &wanted).await;
        let purchase = format!("/api/numbers/purchases/{}", purchase["id"].as_str().expect("an id"));
        let number = becomes(&world, &purchase, "/state", "bought").await["numberId"].clone();
        let number = format!("/api/numbers/{}", number.as_str().expect("an id"));
        becomes(&world, &number, "/pointing/state", "settled").await;
    }
    let refused = json!({ "number": "+15005550000", "agentId": origin.night_line });
    let purchase = post(&world, "/api/numbers", &refused).await;
    let purchase = format!("/api/numbers/purchases/{}", purchase["id"].as_str().expect("an id"));
    becomes(&world, &purchase, "/state", "failed").await;

    let own = |url: &str| Number::new("+15550143").voice_url(url);
    world.twilio.set_number(own("https://own.test/voice"));
    let adopted = json!({ "number": "+15550143", "agentId": origin.night_line });
    let adopted = post(&world, "/api/numbers/adopt", &adopted).await;
    let number = format!("/api/numbers/{}", adopted["id"].as_str().expect("an id"));
    becomes(&world, &number, "/pointing/state", "settled").await;
    world.twilio.set_number(own("https://them.test/voice"));
    assign(&world, &number, Some(origin.reception)).await;
    becomes(&world, &number, "/pointing/state", "conflict").await;
    post(&world, &format!("{number}/pointing"), &json!({ "overwrite": true })).await;
    becomes(&world, &number, "/pointing/state", "settled").await;
    assign(&world, &number, None).await;
    becomes(&world, &number, "/pointing/place", "edge").await;
    becomes(&world, &number, "/pointing/state", "settled").await;
    assert_eq!(origin.delete(&format!("{number}?confirm=%2B15550143")).await.status, 204);

    let fields = json!({ "target": "openai-realtime", "agentIds": [origin.reception] });
    let rollout =
        format!("/api/rollouts/{}", post(&world, "/api/rollouts", &fields).await["id"].as_str().expect("an id"));
    post(&world, &format!("{rollout}/start"), &json!({})).await;
    becomes(&world, &rollout, "/state", "completed").await;
    post(&world, &format!("{rollout}/rollback"), &json!({})).await;
    becomes(&world, &rollout, "/state", "rolled_back").await;
    jobs.abort();

    assert_eq!(unlogged(&origin.database).await, [""; 0]);
    let mut conn = origin.database.connect().await;
    let nameless =
        "select coalesce(jsonb_agg(type), '[]') from event_log where request_id is null and actor <> 'command:seed'";
    let nameless: Value = query_scalar(nameless).fetch_one(&mut conn).await.expect("events");
    assert_eq!(nameless, json!([]), "events that do not say which job they are of");
}

async fn post(world: &World, path: &str, body: &Value) -> Value {
    let answer = world.origin.post(path, body).await;
    assert!((200..300).contains(&answer.status), "{path}: {}", answer.body);
    answer.body
}

async fn assign(world: &World, number: &str, agent: Option<AgentId>) {
    let answer = world.origin.put(&world.origin.key, number, &json!({ "agentId": agent })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn becomes(world: &World, path: &str, member: &str, value: &str) -> Value {
    eventually(&format!("{path}{member} is {value}"), async || {
        let body = world.origin.get(&world.origin.key, path).await.body;
        (body.pointer(member).and_then(Value::as_str) == Some(value)).then_some(body)
    })
    .await
}
