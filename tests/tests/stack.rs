//! The stack's own parts: each starts, can be broken and mended, and leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection, Row};
use tests::stack::edge::{Edge, EdgeOptions, KV_NAMESPACE_ID};
use tests::stack::postgres::Postgres;

/// Long enough that only something that never happens reaches it.
const NEVER: Duration = Duration::from_secs(30);

fn edge_options() -> EdgeOptions {
    let secret = |name: &str| (name.to_owned(), format!("secret of {name} with $dollar and \\n"));
    EdgeOptions {
        vars: vec![("ORIGIN_URL".to_owned(), "http://127.0.0.1:9".to_owned())],
        secrets: ["TWILIO_AUTH_TOKEN", "VAPI_SERVER_SECRET", "EDGE_ORIGIN_SECRET"].map(secret).to_vec(),
        port: None,
    }
}

async fn number(connection: &mut PgConnection) -> i32 {
    connection.fetch_one("select n from kept").await.expect("the row is there").get(0)
}

#[tokio::test]
async fn postgres_keeps_what_it_confirmed_through_a_crash() {
    let postgres = Postgres::start().await.expect("it starts");
    let url = postgres.create_database("crash").await.expect("the database is made");
    let mut connection = PgConnection::connect(&url).await.expect("it is reachable");
    connection.execute("create table kept (n int)").await.expect("the table is made");
    connection.execute("insert into kept values (7)").await.expect("the row is written");

    postgres.kill().await.expect("it can be killed");
    // A session notices by itself that its server is dead, and may answer until then.
    let dies = async { while connection.execute("select 1").await.is_ok() {} };
    tokio::time::timeout(NEVER, dies).await.expect("the session dies with the server");
    PgConnection::connect(&url).await.expect_err("nobody listens");

    postgres.start_again().await.expect("it recovers");
    let mut connection = PgConnection::connect(&url).await.expect("it is reachable");
    assert_eq!(number(&mut connection).await, 7);

    postgres.restart().await.expect("it restarts with a session open");
    let mut connection = PgConnection::connect(&url).await.expect("it is reachable");
    assert_eq!(number(&mut connection).await, 7);
}

#[tokio::test]
async fn databases_on_an_external_server_are_dropped_at_the_end() {
    let server = Postgres::start().await.expect("it starts");
    let external = Postgres::external(server.url()).expect("a good URL");
    let first = external.create_database("same").await.expect("the database is made");
    let second = external.create_database("same").await.expect("the same name is free again");
    assert_ne!(first, second);
    let mut connection = PgConnection::connect(&first).await.expect("it is reachable");
    connection.execute("select 1").await.expect("it works");

    drop(external);

    let mut connection = PgConnection::connect(server.url()).await.expect("the server was not touched");
    let left = connection
        .fetch_one("select count(*) from pg_database where datname like 'same%'")
        .await
        .expect("it can be counted");
    assert_eq!(left.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn the_edge_answers_and_its_replica_can_be_written() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let edge = Edge::start(edge_options()).await.expect("it starts");

    let health = http.get(format!("{}/healthz", edge.base_url())).send().await.expect("it answers");
    assert_eq!(health.status(), 200);

    let namespace = format!("{}/storage/kv/namespaces/{KV_NAMESPACE_ID}", edge.kv_api_url());
    let pairs = serde_json::json!([{"key": "number:+15550100", "value": "{\"revision\":1}"}]);
    let written = http.put(format!("{namespace}/bulk")).json(&pairs).send().await.expect("it answers");
    assert_eq!(written.status(), 200, "{:?}", written.text().await);
    let read = http.get(format!("{namespace}/values/number:+15550100")).send().await.expect("it answers");
    assert_eq!(read.text().await.expect("a value"), "{\"revision\":1}");

    let log = edge.log();
    assert!(log.contains("Ready on"), "{log}");
    assert!(!log.contains("with $dollar"), "a secret is in the log: {log}");
    edge.stop().await.expect("it ends");
}

/// What [`a_killed_owner_leaves_nothing`] kills. On its own it does nothing.
#[tokio::test]
async fn owner_to_be_killed() {
    if std::env::var_os("STACK_TEST_OWNER").is_none() {
        return;
    }
    let postgres = Postgres::start().await.expect("it starts");
    let mut connection = PgConnection::connect(postgres.url()).await.expect("it is reachable");
    connection.execute("select 1").await.expect("a session is open");
    let _edge = Edge::start(edge_options()).await.expect("it starts");
    println!("OWNER READY");
    std::future::pending::<()>().await;
}

/// A line of `ps`.
#[derive(Clone, Debug, PartialEq)]
struct Running {
    id: u32,
    parent: u32,
    command: String,
}

/// Everything that runs on this machine. Zombies do not: collecting them is up to the
/// system's first process.
fn running() -> Vec<Running> {
    let listing = Command::new("ps").args(["axww", "-o", "pid=,ppid=,stat=,args="]).output().expect("ps runs");
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let id = fields.next()?.parse().ok()?;
        let parent = fields.next()?.parse().ok()?;
        let alive = !fields.next()?.starts_with('Z');
        alive.then(|| Running { id, parent, command: fields.collect::<Vec<_>>().join(" ") })
    };
    String::from_utf8_lossy(&listing.stdout).lines().filter_map(parse).collect()
}

fn descendants(ancestor: u32) -> Vec<Running> {
    let all = running();
    let mut found: Vec<Running> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        let children = all.iter().filter(|process| process.parent == parent);
        parents.extend(children.clone().map(|process| process.id));
        found.extend(children.cloned());
    }
    found
}

/// The scratch directories; the unpacked server, with its version in its name, stays for the next.
fn scratches(temporary: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(temporary).expect("it can be listed");
    entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_none()).collect()
}

#[test]
fn a_killed_owner_leaves_nothing() {
    let temporary = std::env::temp_dir().join(format!("tandem-owner-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&temporary).expect("it can be made");
    let this = std::env::current_exe().expect("it has a path");
    let mut owner = Command::new(this)
        .args(["--exact", "owner_to_be_killed", "--nocapture"])
        .env("STACK_TEST_OWNER", "1")
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = BufReader::new(owner.stdout.take().expect("it is piped"));
    let ready = output.lines().map_while(Result::ok).any(|line| line.contains("OWNER READY"));
    let before = descendants(owner.id());

    owner.kill().expect("it can be killed");
    owner.wait().expect("it ends");

    assert!(ready, "the owner did not come up");
    for part in ["bin/postgres", "idle", "wrangler-dist", "workerd", "guard"] {
        assert!(before.iter().any(|process| process.command.contains(part)), "no {part} was running: {before:#?}");
    }
    let patience = Instant::now();
    loop {
        let left: Vec<Running> =
            running().into_iter().filter(|now| before.iter().any(|then| then.id == now.id)).collect();
        let files = scratches(&temporary);
        if left.is_empty() && files.is_empty() {
            break;
        }
        assert!(patience.elapsed() < NEVER, "left behind: {left:#?} {files:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_dir_all(&temporary).expect("it can be removed");
}
