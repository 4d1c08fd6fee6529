//! When Vapi does not answer well, and when the command is used wrongly.

use std::time::Duration;

use serde_json::json;
use tests::vapi::Fault;

use crate::world::{PROJECT, World, plain, receptionist};

#[tokio::test]
async fn vapi_is_asked_again_after_429_and_500() {
    let world = World::start().await;
    world.vapi.add_assistant(plain("p1", "Plain"));
    world.vapi.faults.next(1, Fault::RateLimited { retry_after_s: 2 });
    world.vapi.faults.next(1, Fault::ServerError);

    let ran = world.import(&["--assistant", "p1"]).await;

    assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("pause_ms=2000"), "Retry-After counts: {}", ran.stderr);
    let asked: Vec<u16> = world.vapi.requests().all().iter().map(|request| request.status).collect();
    assert_eq!(asked, [429, 500, 200]);
}

#[tokio::test]
async fn it_gives_up_and_the_others_are_imported_all_the_same() {
    let world = World::start().await;
    world.vapi.add_assistant(plain("p1", "One"));
    world.vapi.add_assistant(plain("p2", "Two"));
    world.vapi.faults.next(5, Fault::ServerError);

    let ran = world.import(&["--assistant", "p1", "--assistant", "p2", "--assistant", "p3"]).await;

    assert_eq!(ran.code, 1);
    let json = ran.json();
    let of = |position: usize| &json["assistants"][position];
    assert_eq!(
        (&of(0)["action"], of(0)["error"].as_str().map(|error| error.contains("500"))),
        (&json!("failed"), Some(true))
    );
    assert_eq!(of(1)["action"], "created");
    assert_eq!(of(2)["error"], "Vapi has no such assistant");
    assert_eq!(world.agent("p1").await, json!(null));
    // After the fault, the rest follows.
    assert_eq!(world.import(&["--all"]).await.code, 0);
    assert_eq!(world.agent("p1").await["name"], "One");
}

#[tokio::test]
async fn too_long_a_pause_is_not_waited_for() {
    let world = World::start().await;
    world.vapi.add_assistant(plain("p1", "One"));
    world.vapi.faults.next(1, Fault::RateLimited { retry_after_s: 3600 });
    let ran = world.import(&["--all"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("status 429"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_wrong_key_is_said_at_once() {
    let world = World::start().await;
    let args = ["import", "vapi", "--project", PROJECT, "--all"];
    let ran = world.run_with(&args, &[("VAPI_API_KEY", "wrong")]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("VAPI_API_KEY"), "{}", ran.stderr);
    assert_eq!(world.vapi.requests().all().len(), 1);
    let none = world.run_with(&args, &[("VAPI_API_KEY", "")]).await;
    assert!(none.code == 1 && none.stderr.contains("VAPI_API_KEY is not set"), "{}", none.stderr);
}

#[tokio::test]
async fn a_missing_tool_is_told_and_a_failing_one_stops_the_assistant() {
    let world = World::start().await;
    let mut assistant = plain("p1", "Plain");
    assistant["model"]["toolIds"] = json!(["gone", "../assistant"]);
    world.vapi.add_assistant(assistant);
    let said = world.import(&["--assistant", "p1"]).await.only();
    assert_eq!(crate::world::field(&said, "model.toolIds[0]")["status"], "lost");
    assert_eq!(crate::world::field(&said, "model.toolIds[1]")["status"], "lost");
    assert!(world.vapi.requests().all().iter().any(|request| request.path == "/tool/..%2Fassistant"));

    let before = world.everything().await;
    // The assistant itself is read, its first tool is not.
    world.vapi.faults.next(1, Fault::Slow(Duration::ZERO));
    world.vapi.faults.next(5, Fault::ServerError);
    let ran = world.import(&["--assistant", "p1"]).await;
    assert_eq!((ran.code, ran.only()["action"].as_str()), (1, Some("failed")));
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn an_assistant_of_another_project_is_refused() {
    let world = World::start().await;
    world.vapi.add_assistant(receptionist("r1"));
    world.execute("insert into projects (id, name) values (gen_random_uuid(), 'Elsewhere')").await;
    world.import(&["--all"]).await;
    let before = world.everything().await;
    let ran = world.run(&["import", "vapi", "--project", "Elsewhere", "--all", "--json"]).await;
    assert_eq!((ran.code, ran.only()["action"].as_str()), (1, Some("failed")));
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn wrong_usage_is_2_and_the_help_tells_the_codes() {
    let world = World::start().await;
    for args in [
        &["import", "vapi", "--all"][..],
        &["import", "vapi", "--project", PROJECT],
        &["import", "vapi", "--project", PROJECT, "--all", "--assistant", "a1"],
        &["import", "vapi", "--project", PROJECT, "--all", "--voice", "11labs:rachel=nova"],
        &["import", "vapi", "--project", PROJECT, "--assistant", "no id"],
    ] {
        assert_eq!(world.run(args).await.code, 2, "{args:?}");
    }
    let nowhere = world.run(&["import", "vapi", "--project", "Nowhere", "--all"]).await;
    assert!(nowhere.code == 1 && nowhere.stderr.contains("no project"), "{}", nowhere.stderr);
    let help = world.run(&["import", "vapi", "--help"]).await.stdout;
    for code in ["  0  imported", "  1  something failed", "  2  wrong usage", "  3  imported, but"] {
        assert!(help.contains(code), "{code} in {help}");
    }
}

#[tokio::test]
async fn all_means_more_than_one_page() {
    let world = World::start().await;
    for position in 0..130 {
        world.vapi.add_assistant(plain(&format!("p{position}"), &format!("Agent {position}")));
    }
    let ran = world.import(&["--all"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.json()["assistants"].as_array().map(Vec::len), Some(130));
}
