//! Incoming calls: every row of the table of numbers, with the origin up, slow and gone.

use serde_json::json;
use shared::stream_token;

use crate::origin::{Behaviour, now};
use crate::world::{
    AGENT, HOP_SECRET, MEDIA_URL, PUBLIC, World, call_sid, incoming, number, send, twilio_signature, world, world_alone,
};

/// Twilio gives up after this long.
const TWILIO_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);
const REALTIME: &str = "openai-realtime";
const ORIGINS_TWIML: &str = "<Response><Say>from the origin</Say></Response>";

async fn call(world: &World, call: &str, to: &str) -> (u16, String) {
    send(world.twilio("/twilio/voice", &incoming(call, to))).await
}

/// The call is the origin's to answer, and the origin's answer is what Twilio gets.
async fn is_the_origins(world: &World, to: &str) {
    let call = call_sid();
    world.origin.behave(&call, Behaviour::Answer(200, "text/xml", ORIGINS_TWIML));
    let params = incoming(&call, to);
    let sent = world.twilio("/twilio/voice", &params).build().expect("a request");
    let body = sent.body().and_then(|body| body.as_bytes()).expect("a body").to_vec();
    let response = crate::world::client().execute(sent).await.expect("the Worker answers");
    assert_eq!(response.headers()["content-type"], "text/xml");
    assert_eq!(crate::world::text(response).await, (200, ORIGINS_TWIML.to_owned()), "{to}");
    let received = world.origin.received(&call);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].path_and_query, "/twilio/voice");
    assert_eq!(received[0].content_type, "application/x-www-form-urlencoded");
    assert_eq!(received[0].body, body, "the body is the very one that Twilio sent");
    assert_eq!(received[0].delivery, format!("twilio:/twilio/voice:{call}:ringing:-:-"));
}

#[tokio::test]
async fn a_bridged_call_is_answered_without_the_origin() {
    let (world, outage) = world_alone().await;
    let (call, to) = (call_sid(), number());
    world.replicate_number(&to, REALTIME, REALTIME, json!({})).await;
    outage.begin().await;

    let response = world.twilio("/twilio/voice", &incoming(&call, &to)).send().await.expect("the Worker answers");
    assert_eq!(response.headers()["content-type"], "text/xml");
    let (status, twiml) = crate::world::text(response).await;
    assert_eq!(status, 200);
    let token = twiml.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let token = token.expect("there is a token");
    let grant = stream_token::verify(HOP_SECRET, now(), token, &call.parse().expect("a call")).expect("it is good");
    assert_eq!(grant.agent_id.to_string(), AGENT);
    assert_eq!(
        twiml,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Connect><Stream url=\"{MEDIA_URL}\" \
             statusCallback=\"{PUBLIC}/twilio/stream-status\" statusCallbackMethod=\"POST\">\
             <Parameter name=\"token\" value=\"{token}\"/></Stream></Connect>\
             <Redirect method=\"POST\">{PUBLIC}/twilio/resume</Redirect></Response>"
        )
    );
    assert!(world.origin.received(&call).is_empty());
}

/// The origin hears of a bridged call while its phone is still being connected, and of no other call that way.
#[tokio::test]
async fn a_bridged_call_is_announced_to_the_origin() {
    let (world, _reachable) = world().await;
    let [bridged, redirected] = [(); 2].map(|()| number());
    world.replicate_number(&bridged, REALTIME, REALTIME, json!({})).await;
    world.replicate_number(&redirected, "vapi", "vapi", json!({"vapiHandover": "redirect"})).await;
    let [call, elsewhere] = [(); 2].map(|()| call_sid());
    assert!(self::call(world, &elsewhere, &redirected).await.1.contains("/twilio/inbound_call</Redirect>"));
    assert_eq!(world.origin.received(&elsewhere)[0].path_and_query, "/twilio/voice", "asked, and not told");

    let request = world.twilio("/twilio/voice", &incoming(&call, &bridged));
    let request = request.header("i-twilio-idempotency-token", format!("token-{call}")).build().expect("a request");
    let body = request.body().and_then(|body| body.as_bytes()).expect("a body").to_vec();
    let response = crate::world::client().execute(request).await.expect("the Worker answers");
    assert!(crate::world::text(response).await.1.contains("<Connect><Stream"));

    let received = world.origin.wait_for(&call, 1).await;
    assert_eq!(received[0].path_and_query, "/twilio/expected");
    assert_eq!(received[0].content_type, "application/x-www-form-urlencoded");
    assert_eq!(received[0].body, body, "the body is the very one that Twilio sent");
    assert_eq!(received[0].delivery, format!("twilio:token-{call}"));
    assert_eq!(world.origin.received(&call).len(), 1, "it is told once");
    assert_eq!(world.origin.received(&elsewhere).len(), 1);
    assert!(world.origin.unsigned().is_empty(), "{:?}", world.origin.unsigned());
}

/// The announcement is nobody's business but the origin's: whatever comes of it, the caller has been answered before.
#[tokio::test]
async fn an_announcement_that_fails_changes_nothing() {
    let (world, outage) = world_alone().await;
    let to = number();
    world.replicate_number(&to, REALTIME, REALTIME, json!({})).await;
    let ring = async |sid: &str| {
        let (status, twiml) = call(world, sid, &to).await;
        assert!(status == 200 && twiml.contains("<Connect><Stream"), "{status} {twiml}");
    };
    let failed = async |sid: &str, fault: &str| {
        let line = world.logged(sid, "not_announced").await;
        assert!(line["fault"].as_str().is_some_and(|found| found.contains(fault)), "{line}");
        assert_eq!(world.decisions(sid), ["bridge", "not_announced"]);
    };

    // Until the test has its answer, the origin does not say a word: an edge that waited for it would give it up first.
    let (answered, release) = tokio::sync::watch::channel(false);
    let sid = call_sid();
    world.origin.behave(&sid, Behaviour::Hold(release));
    ring(&sid).await;
    world.origin.wait_for(&sid, 1).await;
    answered.send(true).expect("the origin waits");
    let later = call_sid();
    world.origin.behave(&later, Behaviour::Answer(500, "text/plain", "no"));
    ring(&later).await;
    failed(&later, "500").await;
    assert_eq!(world.decisions(&sid), ["bridge"], "{}", world.log());

    let hanging = call_sid();
    world.origin.behave(&hanging, Behaviour::Hang);
    ring(&hanging).await;
    failed(&hanging, "timeout").await;
    for (refusal, fault) in [(Behaviour::Answer(404, "text/plain", "no"), "404"), (Behaviour::Break, "")] {
        let sid = call_sid();
        world.origin.behave(&sid, refusal);
        ring(&sid).await;
        failed(&sid, fault).await;
        assert_eq!(world.origin.received(&sid).len(), 1, "it is not repeated");
    }
    outage.begin().await;
    let sid = call_sid();
    ring(&sid).await;
    failed(&sid, "").await;
    outage.end().await;
}

#[tokio::test]
async fn a_number_with_redirect_goes_to_vapi_without_the_origin() {
    let (world, outage) = world_alone().await;
    let to = number();
    world.replicate_number(&to, "vapi", "vapi", json!({"vapiHandover": "redirect"})).await;
    outage.begin().await;
    let (status, twiml) = call(world, &call_sid(), &to).await;
    assert_eq!(status, 200);
    assert!(twiml.contains(">https://vapi.tandem.test/twilio/inbound_call</Redirect>"), "{twiml}");
}

#[tokio::test]
async fn the_rest_is_the_origins() {
    let (world, _reachable) = world().await;
    let [bypass, redirected, none, crossed, unparsable, others, unknown] = [(); 7].map(|()| number());
    world.replicate_number(&bypass, "vapi", "vapi", json!({"vapiHandover": "bypass"})).await;
    // Vapi does not give a call back, and the replica may be a minute old.
    world.replicate_number(&redirected, "vapi", "vapi", json!({"vapiHandover": "redirect"})).await;
    world.replicate_number(&none, "vapi", "vapi", json!({})).await;
    world.replicate_number(&crossed, "vapi", REALTIME, json!({})).await;
    world.replicate(&format!("number:{unparsable}"), "{\"revision\":").await;
    // A value under the wrong key must not bridge somebody else's call.
    world.replicate_number(&unknown, REALTIME, REALTIME, json!({"number": others})).await;
    for to in [&bypass, &redirected, &none, &crossed, &unparsable, &others, &unknown] {
        is_the_origins(world, to).await;
    }
    is_the_origins(world, "sip:sales@pbx.example.com").await;
    is_the_origins(world, "").await;
}

#[tokio::test]
async fn a_rejection_stands_when_the_origin_is_gone() {
    let (world, outage) = world_alone().await;
    let [none, crossed, fallback] = [(); 3].map(|()| number());
    world.replicate_number(&none, "vapi", "vapi", json!({})).await;
    world.replicate_number(&crossed, REALTIME, "vapi", json!({})).await;
    world.replicate_number(&fallback, "vapi", REALTIME, json!({"fallbackNumber": "+15550199"})).await;
    outage.begin().await;
    for (to, spoken) in [
        (none.as_str(), "this line cannot take your call"),
        (&crossed, "this line cannot take your call"),
        (&fallback, "<Number>+15550199</Number>"),
        ("sip:sales@pbx.example.com", "not in service"),
    ] {
        let (status, twiml) = call(world, &call_sid(), to).await;
        assert_eq!(status, 200);
        assert!(twiml.contains(spoken), "{to}: {twiml}");
    }
}

#[tokio::test]
async fn a_caller_is_held_and_then_told_and_for_longer_in_a_conversation() {
    let (world, outage) = world_alone().await;
    let (bypass, unknown) = (number(), number());
    world.replicate_number(&bypass, "vapi", "vapi", json!({"vapiHandover": "bypass"})).await;
    outage.begin().await;
    let params = [("CallSid", call_sid())];
    let resume: Vec<_> = params.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let sid = call_sid();
    for (endpoint, params, attempts, spoken_every) in [
        ("/twilio/voice", incoming(&sid, &bypass).to_vec(), 3, 1),
        ("/twilio/voice", incoming(&sid, &unknown).to_vec(), 3, 1),
        ("/twilio/resume", resume, 90, 10),
    ] {
        let mut path = endpoint.to_owned();
        for attempt in 1..=attempts {
            let (status, twiml) = send(world.twilio(&path, &params)).await;
            path = format!("{endpoint}?attempt={}", attempt + 1);
            assert_eq!(status, 200);
            let spoken = twiml.contains("<Say>One moment, please.</Say>");
            assert_eq!(spoken, (attempt - 1) % spoken_every == 0, "{attempt}: {twiml}");
            // In a conversation a line takes the place of a pause, so that the origin is asked each second.
            let paused = endpoint == "/twilio/voice" || !spoken;
            assert_eq!(twiml.contains("<Pause"), paused, "{attempt}: {twiml}");
            assert!(twiml.contains(&format!(">{PUBLIC}{path}</Redirect>")), "{twiml}");
        }
        let (status, twiml) = send(world.twilio(&path, &params)).await;
        assert_eq!(status, 200);
        assert!(twiml.contains("We are sorry") && twiml.ends_with("<Hangup/></Response>"), "{twiml}");
    }
}

#[tokio::test]
async fn an_origin_that_is_slow_or_broken_is_gone() {
    let (world, _reachable) = world().await;
    for behaviour in [
        Behaviour::Hang,
        Behaviour::Answer(500, "text/plain", "no"),
        Behaviour::Answer(522, "text/html", "no"),
        Behaviour::Answer(401, "application/problem+json", "{}"),
        Behaviour::Answer(302, "text/html", ""),
    ] {
        let sid = call_sid();
        world.origin.behave(&sid, behaviour.clone());
        let (status, twiml) = call(world, &sid, &number()).await;
        assert_eq!(status, 200);
        assert!(twiml.contains(&format!(">{PUBLIC}/twilio/voice?attempt=2</Redirect>")), "{behaviour:?}: {twiml}");
    }
}

/// However it is decided, a caller is answered while the origin takes connections and never says a word. Twilio waits
/// 15 s; what it took is printed, and is below 5 s on a machine that is not busy.
#[tokio::test]
async fn a_caller_is_answered_while_the_origin_hangs() {
    let (world, outage) = world_alone().await;
    let [bridged, redirected, bypass, none, crossed, unknown] = [(); 6].map(|()| number());
    world.replicate_number(&bridged, REALTIME, REALTIME, json!({})).await;
    world.replicate_number(&redirected, "vapi", "vapi", json!({"vapiHandover": "redirect"})).await;
    world.replicate_number(&bypass, "vapi", "vapi", json!({"vapiHandover": "bypass"})).await;
    world.replicate_number(&none, "vapi", "vapi", json!({})).await;
    world.replicate_number(&crossed, REALTIME, "vapi", json!({"fallbackNumber": "+15550199"})).await;
    outage.hang().await;
    let held = "/twilio/voice?attempt=2</Redirect>";
    let asked = [
        ("/twilio/voice", bridged.as_str(), "<Connect><Stream"),
        ("/twilio/voice", &redirected, "/twilio/inbound_call</Redirect>"),
        ("/twilio/voice", &bypass, held),
        ("/twilio/voice", &none, "this line cannot take your call"),
        ("/twilio/voice", &crossed, "<Number>+15550199</Number>"),
        ("/twilio/voice", &unknown, held),
        ("/twilio/voice", "sip:sales@pbx.example.com", "not in service"),
        ("/twilio/resume", &bridged, "/twilio/resume?attempt=2</Redirect>"),
    ];
    let calls = asked.map(|(path, to, expected)| async move {
        let started = std::time::Instant::now();
        let call = call_sid();
        let response = world.twilio(path, &incoming(&call, to)).timeout(TWILIO_LIMIT).send().await;
        let response = response.unwrap_or_else(|error| panic!("{path} {expected}: {error}"));
        println!("{path} to {to}: answered after {} ms", started.elapsed().as_millis());
        assert_eq!(response.headers()["content-type"], "text/xml");
        let (status, twiml) = crate::world::text(response).await;
        assert_eq!(status, 200);
        assert!(twiml.contains(expected), "{path} {expected}: {twiml}");
    });
    futures_util::future::join_all(calls).await;
    outage.end().await;
}

#[tokio::test]
async fn resume_is_passed_on_with_its_query() {
    let (world, _reachable) = world().await;
    let sid = call_sid();
    world.origin.behave(&sid, Behaviour::Answer(200, "text/xml", ORIGINS_TWIML));
    let answer = send(world.twilio("/twilio/resume?attempt=3", &[("CallSid", &sid)])).await;
    assert_eq!(answer, (200, ORIGINS_TWIML.to_owned()));
    let received = world.origin.received(&sid);
    assert_eq!(received[0].path_and_query, "/twilio/resume?attempt=3");
}

#[tokio::test]
async fn twilios_own_token_is_the_idempotency_key() {
    let (world, _reachable) = world().await;
    let (sid, to) = (call_sid(), number());
    let request = world.twilio("/twilio/voice", &incoming(&sid, &to));
    send(request.header("i-twilio-idempotency-token", "tok-1")).await;
    assert_eq!(world.origin.received(&sid)[0].delivery, "twilio:tok-1");
}

#[tokio::test]
async fn nothing_that_is_forwarded_lacks_a_good_signature_and_no_log_line_names_a_caller() {
    let (world, _reachable) = world().await;
    let (sid, to) = (call_sid(), number());
    let signature = twilio_signature("wrong", &format!("{PUBLIC}/twilio/voice"), &incoming(&sid, &to));
    send(world.twilio("/twilio/voice", &incoming(&sid, &to))).await;
    send(world.form("/twilio/voice", &incoming(&sid, &to)).header("x-twilio-signature", signature)).await;
    assert_eq!(world.origin.received(&sid).len(), 1);
    assert!(world.origin.unsigned().is_empty(), "{:?}", world.origin.unsigned());
    let log = world.log();
    let line = log.lines().find(|line| line.contains(&sid)).expect("the decision is logged");
    let line: serde_json::Value = serde_json::from_str(line).expect("a line is one JSON object");
    assert_eq!((&line["decision"], &line["replica"]), (&json!("ask_origin"), &json!("miss")), "{line}");
    assert!(line["ms"].is_u64(), "{line}");
    for secret in [&to, "+15550100002", HOP_SECRET, crate::world::TWILIO_TOKEN, crate::world::VAPI_SECRET] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
