//! In the middle of replacing every secret: the origin has the new ones already, everybody else uses the old ones.

use reqwest::Method;
use serde_json::{Value, json};
use shared::hop::{self, SignedRequest};
use tests::openai::{ItemKind, Reply, Session, SessionHandle};
use tests::tandem::{AUTH_TOKEN, EDGE_ORIGIN_SECRET, EDGE_URL, ORIGIN_URL, Options, VAPI_SECRET};
use tests::twilio::{CallHandle, Caller, EndReason, Number};
use tests::vapi::{Facts, messages};
use time::OffsetDateTime;

use crate::audio::{self, CALLER};
use crate::world::{LIMIT, REALTIME, Spec, World, model, unix_now};

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_are_good_while_one_replaces_the_other() {
    let both = |name: &str, old: &str| (name.to_owned(), format!("the-next-one,{old}"));
    let origin_env = vec![
        both("EDGE_ORIGIN_SECRET", EDGE_ORIGIN_SECRET),
        both("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
        both("VAPI_SERVER_SECRET", VAPI_SECRET),
    ];
    let world = World::start(Options { openai: model(), origin_env, ..Options::default() }).await;
    let [agent] = world.agents([Spec::listening()]).await;

    // The edge signs and mints with the old secret; the origin, whose voice webhook is the fallback, with the new one.
    for base in [EDGE_URL, ORIGIN_URL] {
        let number = Number::new(&agent.number).voice_url(&format!("{base}/twilio/voice"));
        world.tandem.twilio.set_number(number.status_callback(&format!("{base}/twilio/status")));
        let before = world.sessions(&agent).len();
        let call =
            world.call(&agent, Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)).wait_until_agent_quiet());
        let session = world.session(&agent, before).await;
        let answered = |session: &Session| !session.record().responses.is_empty();
        session.wait_for(answered, LIMIT).await.expect("the caller is answered");
        call.then(Caller::new().hang_up());
        let record = world.over(&call, EndReason::CallerHungUp).await;
        assert_eq!((&record["systemType"], &record["resumes"]), (&json!(REALTIME), &json!(0)), "{base}");
    }
}

/// As the README says: the customer's server accepts both, the tool gets the new one, and when the calls from before are
/// over the server accepts the new one only.
#[tokio::test(flavor = "multi_thread")]
async fn a_tools_secret_is_replaced_while_calls_go_on() {
    let world = World::default().await;
    let [agent, plain] = world.agents([Spec::listening(), Spec::on_vapi("bypass")]).await;
    let (old, new) = ("the-old-secret", "the-new-secret");
    let tool = json!({ "name": "get_slots", "targetUrl": world.tandem.tools.url(), "secret": old });
    let tool = api(&world, Method::POST, "/api/tools", &tool).await;
    for agent in [&agent, &plain] {
        let path = format!("/api/agents/{}", agent.id);
        api(&world, Method::PATCH, &path, &json!({ "toolIds": [tool["id"]] })).await;
    }
    world.tandem.tools.accept(&[old]);
    let before = world.call(&agent, Caller::new());
    let session = world.session(&agent, 0).await;
    looks_up(&before, &session, 1).await;

    world.tandem.tools.accept(&[new, old]);
    let path = format!("/api/tools/{}", tool["id"].as_str().expect("an id"));
    api(&world, Method::PATCH, &path, &json!({ "secret": new })).await;
    looks_up(&before, &session, 2).await;
    let after = world.call(&agent, Caller::new());
    let session = world.session(&agent, 1).await;
    looks_up(&after, &session, 1).await;
    before.then(Caller::new().hang_up());
    world.over(&before, EndReason::CallerHungUp).await;

    world.tandem.tools.accept(&[new]);
    looks_up(&after, &session, 2).await;
    let facts = Facts::inbound(&plain.assistant, &plain.number, "+15550198");
    let question = messages::tool_call(&facts, OffsetDateTime::now_utc(), "get_slots", json!({ "date": "2026-11-23" }));
    let answer = world.tandem.vapi.send(question).await.body;
    assert!(answer["results"][0]["result"].is_string(), "{answer}");
    after.then(Caller::new().hang_up());
    world.over(&after, EndReason::CallerHungUp).await;

    let requests = world.tandem.tools.requests().all();
    let signed_with = |secret: &str| {
        let is_signed = requests.iter().map(|request| {
            let signed = SignedRequest { method: "POST", path_and_query: "/tools", body: &request.body };
            hop::verify(secret, unix_now(), request.header("tandem-signature").unwrap_or_default(), signed).is_ok()
        });
        is_signed.collect::<Vec<_>>()
    };
    assert_eq!(signed_with(new), [false, false, true, true, true], "a call keeps the secret that it began with");
    assert!(requests.iter().all(|request| request.status == 200), "no call of the tool was lost");
}

/// The caller asks something that the model looks up, for the `time`th time in this call.
async fn looks_up(call: &CallHandle, session: &SessionHandle, time: usize) {
    session.push_reply(Reply::tool_call("get_slots", &json!({ "date": "2026-11-23" })));
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)).wait_until_agent_quiet());
    let outputs = |session: &Session| {
        let outputs = session.items().iter().filter_map(|item| match &item.kind {
            ItemKind::CallOutput { output, .. } => Some(output.clone()),
            _ => None,
        });
        outputs.collect::<Vec<_>>()
    };
    session.wait_for(move |session: &Session| outputs(session).len() == time, LIMIT).await.expect("the tool answers");
    let said = session.read(outputs);
    assert!(said[time - 1].contains("09:00"), "{said:?}");
}

async fn api(world: &World, method: Method, path: &str, body: &Value) -> Value {
    let request = world.client.request(method, world.tandem.api(path)).bearer_auth(&world.tandem.seeded.api_key);
    let response = request.json(body).send().await.expect("the API answers");
    let status = response.status();
    let body = response.json().await.expect("JSON");
    assert!(status.is_success(), "{path}: {body}");
    body
}
