//! The chain of events: concurrent writers, and everything that somebody with all rights in the database might do.

use futures_util::future::join_all;
use origin::audit::{self, Fault, KeptHead, Verdict};
use origin::store;
use origin::store::events::{self, Actor, NewEvent};
use serde_json::json;
use shared::ProjectId;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, query, query_scalar};
use uuid::Uuid;

use crate::harness::{Database, eventually};

async fn project(conn: &mut PgConnection, name: &str) -> ProjectId {
    let id = Uuid::now_v7();
    query("insert into projects (id, name) values ($1, $2)")
        .bind(id)
        .bind(name)
        .execute(conn)
        .await
        .expect("a project");
    ProjectId(id)
}

async fn log(conn: &mut PgConnection, project: ProjectId, kind: &str) {
    let event = NewEvent {
        before: Some(json!({ "b": [1.50, null], "a": "é\n\"" })),
        ..NewEvent::new(project, kind, &Actor::Origin)
    };
    events::append(conn, &event).await.expect("an event");
}

/// Verifies everything.
async fn verify(database: &Database, kept: &[KeptHead]) -> Vec<Verdict> {
    audit::verify(&mut database.connect().await, None, kept).await.expect("a verdict")
}

async fn faults(database: &Database) -> Vec<Fault> {
    verify(database, &[]).await.into_iter().flat_map(|verdict| verdict.faults).collect()
}

/// Does what no trigger would allow.
async fn forge(database: &Database, statements: &str) {
    let mut conn = database.connect().await;
    conn.execute("set session_replication_role = replica").await.expect("all rights in the test's database");
    conn.execute(AssertSqlSafe(statements.to_owned())).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// Makes the log what it was when `keep` was called.
async fn restore(database: &Database) {
    forge(
        database,
        "delete from event_log; insert into event_log overriding system value select * from kept_log;
         delete from event_heads; insert into event_heads select * from kept_heads",
    )
    .await;
    assert_eq!(faults(database).await, []);
}

async fn keep(database: &Database) {
    let keep = "create table kept_log as table event_log; create table kept_heads as table event_heads";
    database.connect().await.execute(keep).await.expect("a copy of the log");
}

/// A database with one project of five events, whose ids are 1 to 5.
async fn five_events() -> (Database, ProjectId) {
    let database = Database::migrated().await;
    let mut conn = database.connect().await;
    let project = project(&mut conn, "Lakeside").await;
    for kind in ["one", "two", "three", "four", "five"] {
        log(&mut conn, project, kind).await;
    }
    assert_eq!(faults(&database).await, []);
    (database, project)
}

#[tokio::test]
async fn racing_writers_make_one_chain_of_each_project() {
    let database = Database::migrated().await;
    let mut conn = database.connect().await;
    let projects = [project(&mut conn, "A").await, project(&mut conn, "B").await];

    join_all((0..12).map(async |writer: usize| {
        let mut conn = database.connect().await;
        let project = projects[writer % 2];
        for round in 0..20 {
            let mut tx = conn.begin().await.expect("a transaction");
            for _ in 0..=round % 3 {
                log(&mut tx, project, "raced").await;
            }
            let event = NewEvent::new(project, "raced.once", &Actor::Origin);
            events::append_once(&mut tx, &event, &round.to_string()).await.expect("an event");
            if round % 5 == 4 {
                tx.rollback().await.expect("a rollback");
            } else {
                tx.commit().await.expect("a commit");
            }
        }
    }))
    .await;

    let verdicts = verify(&database, &[]).await;
    assert_eq!(verdicts.len(), 2);
    for verdict in &verdicts {
        assert_eq!(verdict.faults, [], "{}", verdict.project);
    }
    // Of each round of three (1, 2 and 3 events) every fifth was rolled back.
    let of_one_writer: usize = (0..20).filter(|round| round % 5 != 4).map(|round| round % 3 + 1).sum();
    let expected = i64::try_from(of_one_writer * 6 + 16).expect("a small number");
    assert_eq!(verdicts.iter().map(|verdict| verdict.head.count).collect::<Vec<_>>(), [expected, expected]);
    let of_a: Vec<i64> = query_scalar("select position from event_log where project_id = $1 order by position")
        .bind(projects[0].0)
        .fetch_all(&mut conn)
        .await
        .expect("positions");
    assert_eq!(of_a, (1..=expected).collect::<Vec<_>>(), "no gap, whatever was rolled back");
}

#[tokio::test]
async fn whoever_has_logged_and_waits_for_a_row_is_not_waited_for() {
    let database = Database::migrated().await;
    let (mut first, mut second) = (database.connect().await, database.connect().await);
    let project = project(&mut first, "A").await;
    query("insert into agents (id, project_id, name) values ($1, $1, 'Agent')")
        .bind(project.0)
        .execute(&mut first)
        .await
        .expect("an agent");
    let lock = "select from agents for update";

    let mut logged = first.begin().await.expect("a transaction");
    log(&mut logged, project, "first").await;
    let mut holder = second.begin().await.expect("a transaction");
    holder.execute(lock).await.expect("the agent's lock");

    // Were the chain locked while events are written, these two would wait for each other.
    let waiting = async {
        logged.execute(lock).await.expect("the agent's lock, in the end");
        logged.commit().await.expect("a commit");
    };
    let finishing = async {
        eventually("the other waits for the agent", async || {
            let waits: bool = query_scalar("select exists (select from pg_locks where not granted)")
                .fetch_one(&mut database.connect().await)
                .await
                .expect("the locks");
            waits.then_some(())
        })
        .await;
        log(&mut holder, project, "second").await;
        holder.commit().await.expect("a commit");
    };
    tokio::join!(waiting, finishing);

    let kinds: Vec<String> = query_scalar("select type from event_log order by position")
        .fetch_all(&mut database.connect().await)
        .await
        .expect("the log");
    assert_eq!(kinds, ["second", "first"], "in the order of commits");
    assert_eq!(faults(&database).await, []);
}

#[tokio::test]
async fn events_from_before_are_chained_by_the_migration() {
    let database = Database::empty().await;
    let pool = store::connect_unlimited(&database.url.clone().into()).await.expect("a connection");
    store::MIGRATIONS.run_to(15, &pool).await.expect("the schema before the chain");
    let mut conn = database.connect().await;
    let projects = [project(&mut conn, "A").await, project(&mut conn, "B").await, project(&mut conn, "Silent").await];
    for project in [projects[1], projects[0], projects[1]] {
        query("insert into event_log (project_id, type, actor, before) values ($1, 'old', 'origin', 'null')")
            .bind(project.0)
            .execute(&mut conn)
            .await
            .expect("an event from before");
    }

    store::MIGRATIONS.run(&pool).await.expect("the rest applies to a database in use");

    log(&mut conn, projects[1], "new").await;
    let verdicts = verify(&database, &[]).await;
    assert!(verdicts.iter().all(Verdict::is_sound), "{verdicts:?}");
    assert_eq!(verdicts.iter().map(|verdict| verdict.head.count).collect::<Vec<_>>(), [1, 3, 0]);
}

#[tokio::test]
async fn everything_that_an_event_says_is_hashed() {
    let database = Database::migrated().await;
    let columns: Vec<String> = query_scalar(
        "select column_name::text from information_schema.columns where table_name = 'event_log' order by 1",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .expect("the columns");
    // A new column belongs into `event_hash` and `store::events::chain`, both under a new version of the text.
    let (hashed, chained) = (
        [
            "actor",
            "after",
            "agent_id",
            "at",
            "before",
            "call_id",
            "details",
            "id",
            "number_id",
            "once",
            "position",
            "project_id",
            "request_id",
            "type",
        ],
        ["hash", "previous_hash"],
    );
    let mut known: Vec<&str> = hashed.into_iter().chain(chained).collect();
    known.sort_unstable();
    assert_eq!(columns, known);

    let (database, _) = five_events().await;
    let other = project(&mut database.connect().await, "Other").await;
    keep(&database).await;
    for column in hashed {
        let value = match column {
            "at" => "at + interval '1 microsecond'".to_owned(),
            "id" => "default".to_owned(),
            "position" => "6".to_owned(),
            "agent_id" | "number_id" | "call_id" => format!("'{}'", Uuid::now_v7()),
            "project_id" => format!("'{other}'"),
            "before" | "after" | "details" => "'null'".to_owned(),
            _ => "'other'".to_owned(),
        };
        forge(&database, &format!("update event_log set {column} = {value} where id = 3")).await;
        assert_ne!(faults(&database).await, [], "{column} was edited");
        restore(&database).await;
    }
}

#[tokio::test]
async fn each_forgery_is_named() {
    let edited = |n| Fault::Edited { position: n, event_id: n };
    let cases = [
        ("update event_log set actor = 'nobody' where id = 3", vec![edited(3)]),
        ("update event_log set hash = null where id = 3", vec![edited(3)]),
        (
            "update event_log set hash = previous_hash, previous_hash = hash where id = 3",
            vec![edited(3), Fault::Unlinked { position: 4, event_id: 4 }],
        ),
        ("delete from event_log where id = 3", vec![Fault::Missing { from: 3, to: 3 }]),
        ("delete from event_log where id >= 4", vec![Fault::Missing { from: 4, to: 5 }]),
        ("delete from event_log", vec![Fault::Missing { from: 1, to: 5 }]),
        ("delete from event_log where id = 5; update event_heads set count = 4", vec![Fault::WrongHead]),
        (
            "update event_log set actor = 'nobody' where id = 3;
             update event_log e set hash = event_hash(previous_hash, position, e) where id = 3",
            vec![Fault::Unlinked { position: 4, event_id: 4 }],
        ),
        (
            "insert into event_log (id, project_id, type, actor) overriding system value
             select 6, id, 'forged', 'origin' from projects",
            vec![Fault::Inserted { event_id: 6 }],
        ),
        (
            "insert into event_log (id, project_id, type, actor, position) overriding system value
             select 6, id, 'forged', 'origin', 6 from projects",
            vec![Fault::Inserted { event_id: 6 }],
        ),
        ("update event_heads set hash = decode(repeat('01', 32), 'hex')", vec![Fault::WrongHead]),
        ("delete from event_heads", (1..=5).map(|event_id| Fault::Inserted { event_id }).collect()),
        (
            "update event_log set position = 12 where id = 2; update event_log set position = 2 where id = 3;
             update event_log set position = 3 where id = 2",
            vec![
                Fault::Edited { position: 2, event_id: 3 },
                Fault::Edited { position: 3, event_id: 2 },
                Fault::Unlinked { position: 4, event_id: 4 },
            ],
        ),
    ];
    let (database, _) = five_events().await;
    keep(&database).await;
    for (forgery, expected) in cases {
        forge(&database, forgery).await;
        assert_eq!(faults(&database).await, expected, "{forgery}");
        restore(&database).await;
    }
}

#[tokio::test]
async fn a_log_that_was_cut_and_made_anew_is_not_the_one_of_an_earlier_head() {
    let (database, project) = five_events().await;
    let kept = [KeptHead { project_id: project, head: verify(&database, &[]).await[0].head }];
    log(&mut database.connect().await, project, "six").await;
    assert!(verify(&database, &kept).await[0].is_sound(), "a log that grew is still the same");

    // All that an owner of the database can do: cut, change the head, and let the trigger do the rest.
    forge(
        &database,
        "delete from event_log where id >= 5;
         update event_heads set count = 4, hash = (select hash from event_log where id = 4)",
    )
    .await;
    log(&mut database.connect().await, project, "another").await;

    assert_eq!(faults(&database).await, [], "by itself the log looks whole");
    assert_eq!(verify(&database, &kept).await[0].faults, [Fault::NotAsBefore { count: 5 }]);

    forge(&database, "delete from event_log; delete from event_heads; delete from projects").await;
    assert_eq!(verify(&database, &kept).await[0].faults, [Fault::NotAsBefore { count: 5 }]);
}

#[tokio::test]
async fn the_head_can_be_changed_by_logging_only() {
    let (database, _) = five_events().await;
    let mut conn = database.connect().await;
    for change in [
        "update event_heads set count = 4",
        "insert into event_heads select id, 0, sha256('') from projects on conflict do nothing",
        "delete from event_heads",
        "truncate event_heads",
        "update event_log set position = null, hash = null where id = 5",
    ] {
        let refused = conn.execute(change).await.expect_err(change).to_string();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
    assert_eq!(faults(&database).await, []);
}
