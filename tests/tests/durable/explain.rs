//! Why a call goes where it goes, through the API and at the command line.

use origin::providers::cloudflare::Pair;
use origin::store::calls::{self, NewCall};
use serde_json::{Value, json};
use shared::{CallSid, SystemType};
use time::OffsetDateTime;

use crate::world::{NUMBER, World, patient_kv};

const PATH: &str = "/api/routes/explain?to=%2B15550100001";

#[tokio::test]
async fn the_row_the_data_and_the_edges_copy() {
    let kv = patient_kv().await;
    let world = World::with_kv(&kv).await;
    let absent = world.get(PATH).await;
    assert_eq!(absent.status, 200, "{}", absent.body);
    assert_eq!(absent.body["edge"]["decision"], "ask_origin");

    world.replicate().await;
    let explained = world.get(PATH).await.body;

    assert_eq!(explained["decision"], "bypass_to_vapi");
    assert!(explained["row"].as_str().expect("a sentence").contains("the handover is bypass"), "{explained}");
    let revision = &explained["route"]["revision"];
    assert!(revision.is_i64());
    assert_eq!(explained["agent"]["systemType"], "vapi");
    assert_eq!(
        explained["number"],
        json!({ "systemType": "vapi", "vapiHandover": "bypass", "vapiPhoneNumberId": "number-1" })
    );
    assert_eq!(explained["replica"]["replicated"], true);
    let edge = &explained["edge"];
    assert_eq!((&edge["agrees"], &edge["decision"]), (&json!(true), &json!("bypass_to_vapi")));
    assert_eq!((&edge["value"], &edge["revision"]), (&explained["route"], revision));
}

#[tokio::test]
async fn an_edge_that_is_behind_is_pointed_out() {
    let kv = patient_kv().await;
    let world = World::with_kv(&kv).await;
    world.replicate().await;
    world.execute("update agents set system_type = 'openai-realtime' where vapi_assistant_id is not null").await;

    let explained = world.get(PATH).await.body;

    assert_eq!((&explained["decision"], &explained["replica"]["replicated"]), (&json!("cross_system"), &json!(false)));
    assert_eq!(
        (&explained["edge"]["agrees"], &explained["edge"]["decision"]),
        (&json!(false), &json!("bypass_to_vapi"))
    );
    let note = explained["edge"]["note"].as_str().expect("a note");
    let revision = explained["route"]["revision"].as_i64().expect("a revision");
    assert!(note.contains(&format!("the tables have {revision}")), "{note}");
    let said = world.command(&["route", "explain", "--to", NUMBER]).await.expect_err("exit code 1").to_string();
    assert!(!said.contains("panicked"), "{said}");

    // The same revision with another value: nobody of ours has written that.
    let mut value = explained["route"].clone();
    value["numberSystemType"] = json!("openai-realtime");
    let pair = Pair { key: format!("number:{NUMBER}"), value: value.to_string(), metadata: Value::Null };
    assert!(world.kv().put(&[pair]).await.expect("a write").is_empty());
    let explained = world.get(PATH).await.body;
    assert!(explained["edge"]["note"].as_str().expect("a note").contains("same revision"), "{explained}");
}

#[tokio::test]
async fn another_projects_number_is_not_there() {
    let world = World::start().await;
    world
        .execute(
            "with project as (insert into projects (id, name) values (gen_random_uuid(), 'Elsewhere') returning id)
             insert into phone_numbers (id, project_id, number) select gen_random_uuid(), id, '+15550177' from project",
        )
        .await;
    for number in ["%2B15550177", "%2B15550178"] {
        let answer = world.get(&format!("/api/routes/explain?to={number}")).await;
        assert_eq!((answer.status, &answer.body["code"]), (404, &json!("not_found")), "{number}");
    }
    assert_eq!(world.get("/api/routes/explain?to=bob").await.status, 400);
    assert_eq!(world.get("/api/routes/explain").await.status, 400);
    assert_eq!(world.get("/api/routes/explain?to=+15550100001").await.status, 200, "a plus that was not encoded");
}

#[tokio::test]
async fn calls_of_the_caller_that_go_on_are_shown() {
    let world = World::start().await;
    let sid: CallSid = "CA01".parse().expect("a SID");
    let new = NewCall {
        project_id: world.project,
        agent_id: world.reception,
        number_id: None,
        call_sid: Some(&sid),
        vapi_call_id: None,
        from: Some("+15550199"),
        to: Some(NUMBER),
        system_type: SystemType::OpenaiRealtime,
        started_at: OffsetDateTime::now_utc(),
    };
    let mut conn = world.app.db.acquire().await.expect("a connection");
    let call = calls::begin(&mut conn, &new).await.expect("a call").0.id;

    let of = async |from: &str| world.get(&format!("{PATH}&from={from}")).await.body["openCalls"].clone();
    let open = json!([{ "id": call, "systemType": "openai-realtime", "status": "ringing" }]);
    assert_eq!((of("%2B15550199").await, of("%2B15550198").await), (open, json!([])));
}

#[tokio::test]
async fn the_command_says_the_same() {
    let kv = patient_kv().await;
    let world = World::with_kv(&kv).await;
    world.replicate().await;

    let text = world.command(&["route", "explain", "--to", NUMBER]).await.expect("exit code 0");
    for part in ["decision  bypass_to_vapi", "route     revision", "edge      bypass_to_vapi: The edge has the route"] {
        assert!(text.contains(part), "{text}");
    }
    let json = world.command(&["route", "explain", "--to", NUMBER, "--json"]).await.expect("exit code 0");
    assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), world.get(PATH).await.body);

    let unknown = world.command(&["route", "explain", "--to", "+15550178", "--json"]).await.expect("exit code 0");
    let unknown: Value = serde_json::from_str(&unknown).expect("JSON");
    assert_eq!((&unknown["decision"], &unknown["route"]), (&json!("not_in_service"), &Value::Null));
}
