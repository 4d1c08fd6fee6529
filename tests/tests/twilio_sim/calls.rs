//! What verbs do to a call.

use serde_json::{Value, json};
use tests::twilio::{CallStatus, Callee, Caller, EndReason, InboundCall, Outcome, Twilio, What};

use super::our_side::{Answer, BASE, LIMIT, NUMBER, OurSide, call, codes, whole_call};

fn was_answered(call: &tests::twilio::CallHandle) -> bool {
    call.trace().iter().any(|entry| entry.what == What::Answered)
}

#[tokio::test]
async fn only_a_first_reject_leaves_a_call_unanswered() {
    for (verbs, reason, status) in [
        ("<Reject/>", EndReason::Rejected, CallStatus::NoAnswer),
        ("<Reject reason=\"busy\"/>", EndReason::Rejected, CallStatus::Busy),
        ("<Say>Hi.</Say><Reject/>", EndReason::HungUp, CallStatus::Completed),
        ("<Hangup/>", EndReason::HungUp, CallStatus::Completed),
        ("", EndReason::EndOfDocument, CallStatus::Completed),
        ("<Pause/><Say>Hi.</Say>", EndReason::EndOfDocument, CallStatus::Completed),
    ] {
        let our_side = OurSide::start().await;
        our_side.answer("/voice", [Answer::twiml(verbs)]);
        let twilio = our_side.twilio().await;
        let (call, ended) = whole_call(&twilio, Caller::new()).await;
        assert_eq!((ended, call.status()), (reason, status), "{verbs}");
        assert_eq!(was_answered(&call), reason != EndReason::Rejected, "{verbs}");
    }
}

#[tokio::test]
async fn a_first_redirect_leaves_the_call_ringing_and_replaces_the_document() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Redirect>next?n=1</Redirect><Say>Never.</Say>")]);
    let second = "<Say>One.</Say><Redirect method=\"GET\">/last</Redirect>";
    our_side.answer("/next", [Answer::twiml(second)]);
    our_side.answer("/last", [Answer::twiml("<Say>Two.</Say>")]);
    let twilio = our_side.twilio().await;
    let (call, _) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(call.said(), ["One.", "Two."]);
    assert_eq!(call.verbs(), ["Redirect", "Say", "Redirect", "Say"]);
    assert_eq!(our_side.received("/next")[0].param("CallStatus").as_deref(), Some("ringing"));
    assert!(our_side.received("/last")[0].target.contains("CallStatus=in-progress"));
}

#[tokio::test]
async fn an_endless_loop_of_redirects_ends() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Redirect/>")]);
    let twilio = our_side.twilio().await;
    let (_, reason) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(reason, EndReason::ApplicationError);
}

#[tokio::test]
async fn unknown_parts_of_a_document_are_noted_and_skipped() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Speak>x</Speak><Say pitch=\"9\">Yes.</Say><Gather/>")]);
    let twilio = our_side.twilio().await;
    let (call, _) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(call.said(), ["Yes."]);
    assert_eq!(codes(&twilio), [12200, 12200, 0]);
}

#[tokio::test]
async fn a_text_answer_is_read_aloud() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::of("text/plain; charset=utf-8", "Good day.\n")]);
    let twilio = our_side.twilio().await;
    let (call, _) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(call.said(), ["Good day."]);
}

async fn dialled(outcome: Callee, dial: &str) -> (OurSide, Twilio, tests::twilio::CallHandle) {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml(dial)]);
    our_side.answer("/dialled", [Answer::twiml("<Say>Bye.</Say>")]);
    let twilio = our_side.twilio().await;
    twilio.set_callee("+15550177", outcome);
    let (call, _) = whole_call(&twilio, Caller::new()).await;
    (our_side, twilio, call)
}

#[tokio::test]
async fn dial_tells_its_action_how_it_went() {
    let dial = "<Dial action=\"/dialled\" timeout=\"5\"><Number>+15550177</Number></Dial><Say>Dead.</Say>";
    for (callee, status) in [
        (Callee::answers_for_ms(2000), "completed"),
        (Callee::with(Outcome::Busy), "busy"),
        (Callee::with(Outcome::NoAnswer), "no-answer"),
        (Callee::with(Outcome::Unreachable), "failed"),
    ] {
        let (our_side, _twilio, call) = dialled(callee, dial).await;
        let [action] = &our_side.received("/dialled")[..] else { panic!("one request") };
        assert_eq!(action.param("DialCallStatus").as_deref(), Some(status));
        assert_eq!(action.param("DialCallDuration").is_some(), status == "completed");
        assert_eq!(call.said(), ["Bye."], "what follows a dial with an action is dead");
    }
}

#[tokio::test]
async fn dial_without_an_action_goes_on_with_the_next_verb() {
    let (_our_side, _twilio, call) = dialled(Callee::default(), "<Dial>+15550177</Dial><Say>Next.</Say>").await;
    assert_eq!(call.said(), ["Next."]);
    assert!(call.dead_air_ms() < 4000, "ringing and talking are not dead air: {:?}", call.dead_air());
}

#[tokio::test]
async fn a_dial_that_answers_on_bridge_leaves_an_unanswered_call_ringing() {
    let dial = "<Dial answerOnBridge=\"true\" action=\"/dialled\"><Number>+15550177</Number></Dial>";
    let (our_side, _twilio, _) = dialled(Callee::with(Outcome::Busy), dial).await;
    assert_eq!(our_side.received("/dialled")[0].param("CallStatus").as_deref(), Some("ringing"));
}

#[tokio::test]
async fn a_number_without_a_voice_url_fails_its_calls() {
    let our_side = OurSide::start().await;
    let twilio = our_side.twilio().await;
    let call = twilio.call(InboundCall { to: "+15550999".to_owned(), ..InboundCall::default() });
    assert_eq!(call.wait_ended(LIMIT).await.expect("the call ends"), EndReason::NotConfigured);
}

#[tokio::test]
async fn a_call_is_ended_by_its_time_limit() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Say loop=\"0\">On and on.</Say>")]);
    let twilio = our_side.twilio().await;
    let call = twilio.call(InboundCall { to: NUMBER.to_owned(), limit_ms: 2000, ..InboundCall::default() });
    assert_eq!(call.wait_ended(LIMIT).await.expect("the call ends"), EndReason::TimeLimit);
}

#[tokio::test]
async fn a_pause_that_was_asked_for_is_not_dead_air() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Say>Hi.</Say><Pause length=\"10\"/><Say>Bye.</Say>")]);
    let twilio = our_side.twilio().await;
    let (call, _) = whole_call(&twilio, Caller::new()).await;
    let recording = call.recording();
    assert!(recording.agent.len() > 10 * 8000, "the pause takes its time");
    assert_eq!(recording.agent.len(), recording.caller.len());
    assert!(call.dead_air_ms() < 10_000, "{:?}", call.dead_air());
}

#[tokio::test]
async fn people_start_calls_and_look_at_them_over_http() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Say>Hello.</Say><Pause length=\"60\"/>")]);
    let twilio = our_side
        .twilio_with(|options| {
            options.clips = |name| if name == "hello" { Ok(vec![0x20; 1600]) } else { Err(format!("no clip {name}")) };
        })
        .await;
    let http = tests::hosts::http_client().build().expect("a client");
    let calls = format!("{}/sim/calls", twilio.api_url());
    let refused = http.post(&calls).json(&json!({"to": NUMBER, "say": ["other"]})).send().await.expect("an answer");
    assert_eq!(refused.status(), 400);
    let script = json!([{"interrupt": {"afterMs": 20, "say": "hello"}}, {"dtmf": "1"}, "hangUp"]);
    let started = http.post(&calls).json(&json!({"to": NUMBER, "script": script})).send().await.expect("an answer");
    let started: Value = started.json().await.expect("JSON");
    let sid = started["sid"].as_str().expect("a sid");
    let handle = twilio.find_call(sid).expect("the call");
    assert_eq!(handle.wait_ended(LIMIT).await.expect("the call ends"), EndReason::CallerHungUp);
    let shown: Value = http.get(format!("{calls}/{sid}")).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(shown["endReason"], "callerHungUp");
    let whats: Vec<&str> =
        shown["trace"].as_array().expect("a list").iter().filter_map(|entry| entry["what"].as_str()).collect();
    for what in ["ringing", "webhook", "verb", "answered", "callerSpeaks", "dtmf", "ended"] {
        assert!(whats.contains(&what), "{what} in {whats:?}");
    }
}

#[tokio::test]
async fn a_caller_who_waits_in_vain_gives_up() {
    let our_side = OurSide::start().await;
    our_side.answer(
        "/voice",
        [Answer::twiml(&format!("<Say>Hi.</Say><Pause length=\"90\"/><Redirect>{BASE}/x</Redirect>"))],
    );
    let twilio = our_side.twilio().await;
    let call = call(&twilio, Caller::new().wait_until_heard_ms(60_000).give_up_after_ms(5_000));
    assert_eq!(call.wait_ended(LIMIT).await.expect("the call ends"), EndReason::CallerGaveUp);
}
