//! The schema's steps, and what the database itself refuses.

use origin::store;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, query, query_scalar};
use uuid::Uuid;

use crate::harness::{Database, Origin};

#[tokio::test]
async fn rows_from_before_the_system_type_become_vapi() {
    let database = Database::empty().await;
    let pool = store::connect_unlimited(&database.url.clone().into()).await.expect("a connection");
    store::MIGRATIONS.run_to(1, &pool).await.expect("the base schema applies");
    let mut conn = database.connect().await;
    let id = Uuid::now_v7();
    for statement in [
        "insert into projects (id, name) values ($1, 'Old')",
        "insert into agents (id, project_id, name) values ($1, $1, 'Old agent')",
        "insert into phone_numbers (id, project_id, agent_id, number) values ($1, $1, $1, '+15550100')",
        "insert into calls (id, project_id, agent_id, vapi_call_id) values ($1, $1, $1, 'call-1')",
    ] {
        query(statement).bind(id).execute(&mut conn).await.expect("a row from before");
    }

    store::MIGRATIONS.run(&pool).await.expect("the rest applies to a database in use");

    for table in ["agents", "phone_numbers", "calls"] {
        let sql = format!("select system_type from {table}");
        let types: Vec<String> = query_scalar(AssertSqlSafe(sql)).fetch_all(&mut conn).await.expect("a type");
        assert_eq!(types, ["vapi"], "{table}");
    }
    let switched: bool =
        query_scalar("select switched_at is not null from agents").fetch_one(&mut conn).await.expect("a row");
    assert!(!switched, "an agent that was never switched has no time of a switch");
    let route = store::routes::number(&mut conn, &"+15550100".parse().expect("a number")).await.expect("a route");
    assert_eq!(route.expect("the old number is a route").agent_system_type, shared::SystemType::Vapi);
}

#[tokio::test]
async fn a_new_call_must_be_pinned() {
    let origin = Origin::start().await;
    let mut conn = origin.database.connect().await;
    let unpinned = query("insert into calls (id, project_id, agent_id, vapi_call_id) values ($1, $2, $3, 'call-1')")
        .bind(Uuid::now_v7())
        .bind(origin.project.0)
        .bind(origin.reception.0)
        .execute(&mut conn)
        .await;
    assert!(unpinned.is_err(), "a call without a system was accepted");
}

#[tokio::test]
async fn the_log_cannot_be_changed() {
    let origin = Origin::start().await;
    origin.switch(origin.reception, "openai-realtime").await;
    let mut conn = origin.database.connect().await;
    for change in [
        "update event_log set actor = 'nobody'",
        "update event_log set actor = 'nobody' where false",
        "delete from event_log",
        "truncate event_log",
        "truncate event_log cascade",
    ] {
        let refused = conn.execute(change).await.expect_err(change).to_string();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
    assert_eq!(origin.events(origin.reception).await.len(), 1);
}

#[tokio::test]
async fn constraints_keep_nonsense_out() {
    let origin = Origin::start().await;
    let mut conn = origin.database.connect().await;
    for nonsense in [
        "update agents set system_type = 'other'",
        "update agents set fallback_number = '5550100'",
        "update agents set realtime = '[]'",
        "update agents set vapi_assistant_id = 'a/b'",
        "update phone_numbers set number = '+0555'",
        "update phone_numbers set vapi_handover = 'bypass', vapi_phone_number_id = null",
        "insert into projects (id, name) values (gen_random_uuid(), ' ')",
        "insert into tools (id, project_id, name) select gen_random_uuid(), id, 'neither' from projects",
        "insert into tools (id, project_id, name, target_url) select gen_random_uuid(), id, 'unsigned', 'https://x' from projects",
    ] {
        assert!(conn.execute(nonsense).await.is_err(), "accepted: {nonsense}");
    }
    assert!(moved_to_a_stranger(&mut conn, &origin).await.is_err(), "a number was given to another project's agent");
}

async fn moved_to_a_stranger(conn: &mut PgConnection, origin: &Origin) -> sqlx::Result<()> {
    let stranger = Uuid::now_v7();
    query("insert into projects (id, name) values ($1, 'Stranger')").bind(stranger).execute(&mut *conn).await?;
    query("insert into agents (id, project_id, name) values ($1, $1, 'Stranger')")
        .bind(stranger)
        .execute(&mut *conn)
        .await?;
    query("update phone_numbers set agent_id = $1 where project_id = $2")
        .bind(stranger)
        .bind(origin.project.0)
        .execute(conn)
        .await
        .map(|_| ())
}
