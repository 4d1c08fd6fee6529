//! The edge's early notice: the session is there before the stream, and the record says who called whom.

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use shared::hop::{self, SignedRequest};
use tests::openai::{Closed, Fault, Session, SessionHandle};
use tests::stack::link::State;
use tests::tandem::{EDGE_ORIGIN_SECRET, ORIGIN_URL};
use tests::twilio::{Caller, EndReason};
use tokio_tungstenite::tungstenite::Message;

use crate::audio::{self, AGENT};
use crate::tokens;
use crate::world::{Agent, CALLER, LIMIT, Spec, World, incoming, new_call_sid, send, token, unix_now};

const PATH: &str = "/twilio/expected";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_expected_before_its_stream_opens() {
    let world = World::default().await;
    let bridged = Spec::bridged();
    let [silent, told, slow, late, dead, gone, changed, refused, stopping] = world.agents([bridged; 9]).await;
    let [vapi] = world.agents([Spec::on_vapi("bypass")]).await;
    // Nothing comes of this one: it waits while the others are played.
    let nobody = new_call_sid();
    assert_eq!(expect(&world, &nobody, &silent.number, EDGE_ORIGIN_SECRET).await, 204);
    assert_eq!(expect(&world, &nobody, &silent.number, EDGE_ORIGIN_SECRET).await, 204, "repeated");
    prepared_and_claimed(&world, &told).await;
    claimed_on_its_way(&world, &slow).await;
    told_after_the_stream(&world, &late).await;
    died_while_it_waited(&world, &dead).await;
    hung_up_before_the_stream(&world, &gone).await;
    changed_before_the_stream(&world, &changed).await;
    refused_before_the_stream(&world, &refused).await;

    // Only for agents that are on OpenAI Realtime, and only from the edge.
    let before = world.tandem.openai.sessions().len();
    let call_sid = new_call_sid();
    assert_eq!(expect(&world, &call_sid, &vapi.number, EDGE_ORIGIN_SECRET).await, 204);
    assert_eq!(world.tandem.call(&call_sid).await.expect("the API answers"), None);
    assert_eq!(expect(&world, &new_call_sid(), &told.number, "another secret").await, 403);
    assert_eq!(world.tandem.openai.sessions().len(), before);
    outcome(&world, "not_bridged", 1).await;

    outcome(&world, "expired", 1).await;
    assert_eq!(world.sessions(&silent).len(), 1);
    closed_by_us(&world.session(&silent, 0).await).await;
    let record = world.tandem.call(&nobody).await.expect("the API answers").expect("the call is on record");
    assert_eq!(record["status"], "ringing", "whether it is over Twilio has to say");
    assert!(world.metric("tandem_live_calls ").await.abs() < 0.5, "only streams make a call live");

    // An origin that stops keeps nothing open for calls that it will not take.
    let (_, session) = waiting(&world, &stopping).await;
    world.tandem.origin.terminate().expect("it can be asked to stop");
    closed_by_us(&session).await;
    let status = tokio::time::timeout(LIMIT, world.tandem.origin.ended()).await.expect("it ends").expect("it ran");
    assert!(status.success(), "{status}\n{}", world.tandem.origin.log_tail());
}

/// A notice of our own, for a call whose phone still rings.
async fn expect(world: &World, call_sid: &str, number: &str, secret: &str) -> u16 {
    let form = incoming(call_sid, number, "ringing");
    let request = world.client.post(format!("{}{PATH}", world.tandem.origin.base_url())).form(&form);
    let mut request = request.build().expect("a request");
    let body = request.body().and_then(reqwest::Body::as_bytes).expect("a form").to_vec();
    let signed = SignedRequest { method: "POST", path_and_query: PATH, body: &body };
    let signature = hop::sign(secret, unix_now(), signed).parse().expect("a header");
    request.headers_mut().insert(hop::SIGNATURE_HEADER, signature);
    world.client.execute(request).await.expect("an answer").status().as_u16()
}

/// Waits until so many notices have come to this.
async fn outcome(world: &World, outcome: &str, count: usize) {
    let line = format!("tandem_prepared_sessions_total{{outcome=\"{outcome}\"}} {count}");
    let deadline = Instant::now() + LIMIT;
    loop {
        let metrics = world.client.get(world.tandem.api("/metrics")).send().await.expect("an answer");
        let metrics = metrics.text().await.expect("text");
        if metrics.lines().any(|found| found == line) {
            return;
        }
        let found: Vec<&str> = metrics.lines().filter(|line| line.contains("prepared_sessions")).collect();
        assert!(Instant::now() < deadline, "{line}: {found:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Greeted in one session, and the record is whole.
async fn greeted_once(world: &World, agent: &Agent, call_sid: &str) -> Value {
    assert_eq!(world.sessions(agent).len(), 1);
    let record = world.tandem.ended_call(call_sid).await.expect("the record");
    assert_eq!((&record["from"], &record["to"]), (&Value::from(CALLER), &Value::from(agent.number.as_str())));
    assert!(record["numberId"].is_string(), "{record}");
    record
}

/// As it is in life: the edge tells, and the session is there or on its way when the stream opens.
async fn prepared_and_claimed(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new().wait_until_agent_quiet().hang_up());
    world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT, &call.recording().agent).len(), 600 * 8, "{}", call.trace_text());
    let record = greeted_once(world, agent, call.sid().as_str()).await;
    assert_eq!(record["systemType"], "openai-realtime");
}

/// OpenAI takes its time: the stream claims what is being opened instead of opening another.
async fn claimed_on_its_way(world: &World, agent: &Agent) {
    world.tandem.openai.next_connection(Fault::DelayUpdates(Duration::from_millis(900)));
    let call_sid = new_call_sid();
    assert_eq!(expect(world, &call_sid, &agent.number, EDGE_ORIGIN_SECRET).await, 204);
    greeted_in(world, agent, &call_sid, 0).await;
    greeted_once(world, agent, &call_sid).await;
}

/// The notice is slower than the stream, which does not wait for it.
async fn told_after_the_stream(world: &World, agent: &Agent) {
    world.tandem.link.set(State::Refuse).await.expect("the link lives");
    let call = world.call(agent, Caller::new());
    crate::world::heard(&call, AGENT, 600).await;
    let record = world.tandem.call(call.sid().as_str()).await.expect("the API answers").expect("a record");
    assert_eq!((&record["from"], &record["numberId"]), (&Value::Null, &Value::Null), "nobody has told");
    world.tandem.link.set(State::Open).await.expect("the link lives");
    assert_eq!(expect(world, call.sid().as_str(), &agent.number, EDGE_ORIGIN_SECRET).await, 204);
    let is_told = |record: &Value| record["from"] == CALLER && record["numberId"].is_string();
    world.tandem.call_when(call.sid().as_str(), is_told).await.expect("the record is filled");
    call.hang_up();
    world.over(&call, EndReason::CallerHungUp).await;
    greeted_once(world, agent, call.sid().as_str()).await;
}

/// What was prepared is gone when the stream opens: it opens another.
async fn died_while_it_waited(world: &World, agent: &Agent) {
    let (call_sid, session) = waiting(world, agent).await;
    session.close(1011, "going away");
    outcome(world, "died", 1).await;
    greeted_in(world, agent, &call_sid, 1).await;
}

/// The session that waits was opened with what the agent was before: the stream opens another.
async fn changed_before_the_stream(world: &World, agent: &Agent) {
    let (call_sid, session) = waiting(world, agent).await;
    let change = "update agents set realtime = jsonb_set(realtime, '{voice}', '\"cedar\"') where instructions = $1";
    sqlx::query(change).bind(&agent.instructions).execute(&world.db).await.expect("the voice is valid");
    greeted_in(world, agent, &call_sid, 1).await;
    closed_by_us(&session).await;
    outcome(world, "dropped", 2).await;
}

/// OpenAI gives no session yet: the stream asks again.
async fn refused_before_the_stream(world: &World, agent: &Agent) {
    for _ in 0..2 {
        world.tandem.openai.next_connection(Fault::Refuse(503));
    }
    let call_sid = new_call_sid();
    assert_eq!(expect(world, &call_sid, &agent.number, EDGE_ORIGIN_SECRET).await, 204);
    outcome(world, "openai_unreachable", 1).await;
    greeted_in(world, agent, &call_sid, 0).await;
    greeted_once(world, agent, &call_sid).await;
}

/// The caller hangs up while it rings: the session has nothing to wait for.
async fn hung_up_before_the_stream(world: &World, agent: &Agent) {
    let (call_sid, session) = waiting(world, agent).await;
    let over = incoming(&call_sid, &agent.number, "no-answer");
    assert_eq!(send(world.twilio(ORIGIN_URL, "/twilio/status", &over)).await.0, 204);
    closed_by_us(&session).await;
    outcome(world, "dropped", 1).await;
    let record = world.tandem.ended_call(&call_sid).await.expect("the record");
    assert_eq!(record["endReason"], "no_answer");
    assert_eq!(expect(world, &call_sid, &agent.number, EDGE_ORIGIN_SECRET).await, 204, "too late");
    assert_eq!(world.sessions(agent).len(), 1);
}

/// A call whose phone still rings, and the session that waits for it.
async fn waiting(world: &World, agent: &Agent) -> (String, SessionHandle) {
    let call_sid = new_call_sid();
    assert_eq!(expect(world, &call_sid, &agent.number, EDGE_ORIGIN_SECRET).await, 204);
    let session = world.session(agent, 0).await;
    let record = world.tandem.call(&call_sid).await.expect("the API answers").expect("the call is on record");
    assert_eq!((&record["status"], &record["systemType"]), (&"ringing".into(), &"openai-realtime".into()));
    (call_sid, session)
}

/// The call's stream opens and greets in this session, the agent's last.
async fn greeted_in(world: &World, agent: &Agent, call_sid: &str, number: usize) {
    let mut stream = tokens::open(world).await;
    let parameters = json!({ "token": token(call_sid, agent, unix_now()) });
    let start = tokens::start(call_sid, &parameters, "audio/x-mulaw");
    stream.send(Message::text(start.to_string())).await.expect("the socket is open");
    let session = world.session(agent, number).await;
    session.wait_for(|session| !session.record().responses.is_empty(), LIMIT).await.expect("the agent greets");
    stream.send(Message::text(json!({ "event": "stop" }).to_string())).await.expect("the socket is open");
    session.wait_for(|session| session.record().closed.is_some(), LIMIT).await.expect("the session ends with it");
    assert_eq!(world.sessions(agent).len(), number + 1);
}

async fn closed_by_us(session: &SessionHandle) {
    let closed = |session: &Session| matches!(session.record().closed, Some(Closed::ByClient(1000 | 1005)));
    session.wait_for(closed, LIMIT).await.expect("the session is closed");
}
