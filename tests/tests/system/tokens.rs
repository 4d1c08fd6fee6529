//! Who may open a stream: nobody without a good token, and nothing is opened towards OpenAI before.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::cloudflare::Fault as KvFault;
use tests::tandem::{ACCOUNT_SID, EDGE_ORIGIN_SECRET, EDGE_URL, MEDIA_URL};
use tests::twilio::{Caller, EndReason};
use tests::vapi::Script;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};

use crate::audio::{self, AGENT};
use crate::world::{
    Agent, LIMIT, OrTell, Spec, VAPI, World, incoming, is_bridged, new_call_sid, send, started, token, unix_now,
};

/// How long the replica stays as it was: longer than a short call, shorter than the origin waits for its store.
const STALE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_opened_without_a_good_token() {
    let world = World::default().await;
    let [agent, switched] = world.agents([Spec::bridged(), Spec::bridged()]).await;
    let call = new_call_sid();
    let before = world.rows().await;

    let good = token(&call, &agent, unix_now());
    let forged = good.replace(&agent.id, &switched.id);
    let foreign = {
        let grant = shared::stream_token::verify(EDGE_ORIGIN_SECRET, unix_now(), &good, &call.parse().expect("a call"));
        grant.expect("it is good").mint("somebody-elses-secret")
    };
    let expired = token(&call, &agent, unix_now() - 121);
    let of_another_call = token(&new_call_sid(), &agent, unix_now());
    let mut tokens = vec![None];
    tokens.extend([forged, foreign, expired, of_another_call, String::new(), "v1.x".to_owned()].map(Some));
    for token in &tokens {
        let parameters = token.as_ref().map_or_else(|| json!({}), |token| json!({ "token": token }));
        refused(&world, &[start(&call, &parameters, "audio/x-mulaw")], &format!("{parameters}")).await;
    }
    refused(&world, &[start(&call, &json!({ "token": good }), "audio/x-alaw")], "another format").await;
    refused(&world, &[json!({ "event": "media", "media": { "payload": "//8=" } })], "no start").await;
    refused(&world, &[json!({ "event": "connected", "protocol": "Call", "version": "1.0.0" })], "silence").await;
    refused(&world, &[], "not a word").await;
    assert_eq!(world.rows().await, before, "a refused stream leaves no trace");
    assert_eq!(world.tandem.openai.sessions().len(), 0);
    assert_eq!(world.tandem.openai.refusals(), []);

    used_twice(&world, &agent, &call, &good).await;
    let sessions = world.tandem.openai.sessions().len();
    switched_away(&world, &switched).await;
    assert_eq!(world.tandem.openai.sessions().len(), sessions, "the switched agent's stream opens nothing");
}

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

pub(crate) async fn open(world: &World) -> Socket {
    let to = world.tandem.hosts.resolve(MEDIA_URL).expect("the host is in the table");
    let tcp = tokio::net::TcpStream::connect(&to.address).await.expect("the origin listens");
    let (socket, _) = client_async(to.url, MaybeTlsStream::Plain(tcp)).await.expect("a WebSocket");
    socket
}

pub(crate) fn start(call: &str, parameters: &Value, encoding: &str) -> Value {
    json!({
        "event": "start", "sequenceNumber": "1", "streamSid": "MZ0123",
        "start": {
            "accountSid": ACCOUNT_SID, "streamSid": "MZ0123", "callSid": call, "tracks": ["inbound"],
            "mediaFormat": { "encoding": encoding, "sampleRate": 8000, "channels": 1 },
            "customParameters": parameters,
        },
    })
}

/// Says these messages on a socket of its own, which the origin closes without a word.
async fn refused(world: &World, messages: &[Value], what: &str) {
    let mut socket = open(world).await;
    for message in messages {
        socket.send(Message::text(message.to_string())).await.expect("the socket is open");
    }
    let answer = tokio::time::timeout(LIMIT, socket.next()).await;
    match answer.unwrap_or_else(|_| panic!("{what}: the socket stays open")) {
        None | Some(Ok(Message::Close(_)) | Err(_)) => {}
        Some(Ok(other)) => panic!("{what}: {other:?}"),
    }
}

/// A token opens one stream; a second one with it is closed, and the first goes on.
async fn used_twice(world: &World, agent: &Agent, call: &str, token: &str) {
    let start = start(call, &json!({ "token": token }), "audio/x-mulaw");
    let mut first = open(world).await;
    first.send(Message::text(start.to_string())).await.expect("the socket is open");
    let session = world.session(agent, 0).await;
    refused(world, &[start], "a used token").await;
    session.wait_for(|session| !session.record().responses.is_empty(), LIMIT).await.expect("the agent greets");
    assert_eq!(world.sessions(agent).len(), 1);
    first.send(Message::text(json!({ "event": "stop" }).to_string())).await.expect("the socket is open");
    let rest = async { while let Some(Ok(_)) = first.next().await {} };
    tokio::time::timeout(LIMIT, rest).await.expect("the origin closes after `stop`");
    session.wait_for(|session| session.record().closed.is_some(), LIMIT).await.expect("and closes the session");
}

/// The replica is of before the switch: the stream is refused, the call goes where its agent is now, and what Vapi tells
/// of it counts.
async fn switched_away(world: &World, agent: &Agent) {
    world.tandem.vapi.set_script(Script::new().say("Hello from Vapi.", audio::voice(AGENT, 500)));
    world.tandem.kv.faults.next(1, KvFault::Delay(STALE));
    world.tandem.switch(&agent.id, VAPI).await.expect("the agent has an assistant at Vapi");
    let sid = new_call_sid();
    let (_, twiml) = send(world.twilio(EDGE_URL, "/twilio/voice", &incoming(&sid, &agent.number, "ringing"))).await;
    assert!(is_bridged(&twiml), "the replica is of before the switch: {twiml}");

    let call = world.call(agent, Caller::new().wait_until_agent_quiet());
    call.wait_for(LIMIT, started).await.or_tell(&call, "no stream");
    call.then(Caller::new().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    let urls: Vec<String> = call.streams().into_iter().map(|stream| stream.url).collect();
    assert_eq!(urls.len(), 2, "{urls:?}\n{}", call.trace_text());
    assert!(urls[0] == MEDIA_URL && urls[1].starts_with("wss://media.vapi.test/"), "{urls:?}");
    assert_eq!(audio::only(AGENT, &call.recording().agent).len(), 500 * 8, "{}", call.trace_text());
    assert_eq!((&record["systemType"], &record["resumes"]), (&json!("vapi"), &json!(0)));
    assert!(world.rejections(agent).await.is_empty());
    let vapi_id = record["vapiCallId"].as_str().expect("Vapi has named the call");
    let log = world.tandem.edge.log();
    let its = log.lines().filter(|line| line.contains(vapi_id));
    let skipped = its.filter(|line| line.contains("\"decision\":\"skip\"")).count();
    assert!(skipped > 0, "the replica was of before the switch for Vapi's messages too");
}
