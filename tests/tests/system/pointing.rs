//! Calls between a switch and the moment at which Twilio has been told of it: they arrive where they did before.

use std::time::Instant;

use serde_json::{Value, json};
use tests::twilio::{Caller, EndReason, Fault, Number};
use tests::vapi::{PUBLIC_API, Script};

use crate::audio::{self, AGENT_NEXT, CALLER};
use crate::tools::add_tool;
use crate::world::{Agent, LIMIT, OrTell, REALTIME, Spec, VAPI, World, heard, started};

#[tokio::test(flavor = "multi_thread")]
async fn calls_count_wherever_twilio_still_sends_them() {
    let world = World::default().await;
    let [agent] = world.agents([Spec::on_vapi("none")]).await;
    add_tool(&world, &agent, "get_slots", &world.tandem.tools.url(), 5000).await;
    world.tandem.twilio.set_number(
        Number::new(&agent.number)
            .voice_url(&format!("{PUBLIC_API}/twilio/inbound_call"))
            .status_callback(&format!("{PUBLIC_API}/twilio/status")),
    );
    let script = Script::new()
        .beep("Hello.", 300)
        .call("get_slots", json!({ "date": "2026-11-23" }))
        .say("It is booked.", audio::voice(AGENT_NEXT, 400));
    world.tandem.vapi.set_script(script);
    // Three attempts fail, which takes some 14 s.
    world.tandem.twilio.fail_next(3, Fault::ServerError);
    world.tandem.switch(&agent.id, REALTIME).await.expect("the agent is configured for both");
    world.tandem.replicated(&agent.id).await.expect("replication keeps up");

    straight_to_vapi(&world, &agent).await;
    settled(&world, &agent, "edge").await;
    let call = world.call(&agent, Caller::new().wait_until_agent_quiet().hang_up());
    world.session(&agent, 0).await;
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(record["systemType"], REALTIME);

    // And back.
    world.tandem.twilio.fail_next(3, Fault::ServerError);
    world.tandem.switch(&agent.id, VAPI).await.expect("the agent is configured for both");
    world.tandem.replicated(&agent.id).await.expect("replication keeps up");
    to_us(&world, &agent).await;
    settled(&world, &agent, "vapi").await;
    assert_eq!(world.rejections(&agent).await, [""; 0], "nobody was turned away");
}

/// The agent has left Vapi, the call goes there all the same: its tools run, and its record is whole.
async fn straight_to_vapi(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    heard(&call, AGENT_NEXT, 400).await;
    assert_eq!(pointing(world, agent).await["state"], "pending", "the test is too slow for its own faults");
    call.then(Caller::new().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!((&record["systemType"], &record["endReason"]), (&json!(VAPI), &json!("caller_hung_up")), "{record}");
    let deliveries = world.tandem.vapi.deliveries().all();
    let tool_call = deliveries.iter().find(|delivery| delivery.message_type == "tool-calls").expect("a tool call");
    let answer = tool_call.answer.as_ref().expect("it was answered");
    assert_eq!(answer.body["results"][0]["result"], "On 2026-11-23 these times are free: 09:00, 11:30, 16:15.");
    let skipped = world.events(agent).await.iter().filter(|event| event["type"] == "webhook.skipped").count();
    assert_eq!(skipped, 0);
}

/// The agent is on Vapi, the call arrives here all the same: Vapi takes it.
async fn to_us(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    call.wait_for(LIMIT, started).await.or_tell(&call, "Vapi does not take the call");
    assert_eq!(pointing(world, agent).await["state"], "pending", "the test is too slow for its own faults");
    call.then(Caller::new().say(audio::voice(CALLER, 300)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(record["systemType"], VAPI);
}

async fn settled(world: &World, agent: &Agent, place: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let pointing = pointing(world, agent).await;
        if pointing["state"] == "settled" && pointing["place"] == place {
            return;
        }
        assert!(Instant::now() < deadline, "{pointing}\n{}", world.tandem.origin.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn pointing(world: &World, agent: &Agent) -> Value {
    let numbers = world.tandem.get("/api/numbers").await.expect("the API answers");
    let numbers = numbers["items"].as_array().expect("a list");
    numbers.iter().find(|number| number["number"] == agent.number.as_str()).expect("the number")["pointing"].clone()
}
