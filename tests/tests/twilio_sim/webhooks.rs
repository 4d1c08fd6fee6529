//! Requests to our side: parameters, signature, retries, fallback, what counts as an answer.

use shared::twilio::form::Form;
use shared::twilio::signature::{Request, Signed, verify};
use tests::twilio::{Caller, EndReason, InboundCall, What};

use super::our_side::{
    ACCOUNT, Answer, BASE, LIMIT, NUMBER, OurSide, Received, TOKEN, call, codes, number, whole_call,
};

/// Whether the product's own verification, which was written apart from the simulator, accepts a request.
fn verified(request: &Received) -> bool {
    let form = Form::parse(&request.body).expect("a form");
    let url = format!("{BASE}{}", request.target);
    let signed = if request.method == "POST" { Signed::Form(&form) } else { Signed::Nothing };
    let signature = request.header("x-twilio-signature");
    verify(&[TOKEN], Request { url: &url, signed, signature, settings: None })
}

#[tokio::test]
async fn a_call_asks_the_voice_url_with_everything_a_real_one_carries() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Reject/>")]);
    let twilio = our_side.twilio().await;
    twilio.set_number(number().voice_url(&format!("{BASE}/voice?tenant=O%20B#rc=0")));
    let call = twilio.call(InboundCall {
        to: NUMBER.to_owned(),
        extra: vec![
            ("ForwardedFrom".to_owned(), "+15550111".to_owned()),
            ("CallerName".to_owned(), "Zoë & 100%".to_owned()),
        ],
        ..InboundCall::default()
    });
    call.wait_ended(LIMIT).await.expect("the call ends");

    let [request] = &our_side.received("/voice")[..] else { panic!("one request") };
    assert_eq!((&request.method[..], &request.target[..]), ("POST", "/voice?tenant=O%20B"));
    assert_eq!(request.header("host"), "edge.tandem.test");
    assert!(request.header("content-type").starts_with("application/x-www-form-urlencoded"));
    assert!(!request.header("i-twilio-idempotency-token").is_empty());
    let params = request.params();
    let mut names: Vec<&str> = params.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let mut expected: Vec<String> = ["From", "Caller", "To", "Called"]
        .iter()
        .flat_map(|prefix| ["", "City", "State", "Zip", "Country"].map(|part| format!("{prefix}{part}")))
        .collect();
    expected.extend(
        ["AccountSid", "ApiVersion", "CallSid", "CallStatus", "CallToken", "Direction", "StirVerstat"]
            .map(str::to_owned),
    );
    expected.extend(["StirPassportToken", "ForwardedFrom", "CallerName"].map(str::to_owned));
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(request.param("CallStatus").as_deref(), Some("ringing"));
    assert_eq!(request.param("AccountSid").as_deref(), Some(ACCOUNT));
    assert_eq!(request.param("CallSid").as_deref(), Some(call.sid().as_str()));
    assert_eq!(request.param("CallerCity").as_deref(), Some(""), "blank parameters are sent");
    assert!(verified(request));
}

#[tokio::test]
async fn the_fallback_is_asked_after_a_failure_which_is_not_retried() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::status(500)]);
    our_side.answer("/fallback", [Answer::twiml("<Say>Sorry.</Say>")]);
    let twilio = our_side.twilio().await;
    let (call, reason) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(reason, EndReason::EndOfDocument);
    assert_eq!(our_side.received("/voice").len(), 1);
    let [fallback] = &our_side.received("/fallback")[..] else { panic!("one request") };
    assert_eq!(fallback.param("ErrorCode").as_deref(), Some("11200"));
    assert_eq!(fallback.param("ErrorUrl"), Some(format!("{BASE}/voice")));
    assert!(verified(fallback));
    assert_eq!(call.said(), ["Sorry."]);
}

#[tokio::test]
async fn overrides_retry_with_the_same_idempotency_token() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::status(503), Answer::status(500), Answer::twiml("<Reject/>")]);
    let twilio = our_side.twilio().await;
    twilio.set_number(number().voice_url(&format!("{BASE}/voice#rc=2&rp=5xx")));
    let (_, reason) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(reason, EndReason::Rejected);
    let requests = our_side.received("/voice");
    let tokens: Vec<&str> = requests.iter().map(|request| request.header("i-twilio-idempotency-token")).collect();
    assert_eq!(tokens.len(), 3);
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert!(requests.iter().all(verified));
}

#[tokio::test]
async fn a_failed_connect_is_retried_once() {
    let our_side = OurSide::start().await;
    let twilio = our_side.twilio().await;
    twilio.set_number(number().voice_url("https://nowhere.tandem.test/voice").fallback_url(""));
    let (call, reason) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(reason, EndReason::ApplicationError);
    let attempts = call
        .trace()
        .iter()
        .filter(|entry| matches!(&entry.what, What::Webhook { url, .. } if url.contains("nowhere")))
        .count();
    assert_eq!(attempts, 2);
    assert_eq!(call.said().len(), 1, "the application error is spoken");
    assert_eq!(codes(&twilio), [11210]);
}

#[tokio::test]
async fn an_answer_that_never_comes_is_given_up() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::never()]);
    our_side.answer("/fallback", [Answer::twiml("<Reject reason=\"busy\"/>")]);
    let twilio = our_side.twilio_with(|options| options.webhook_limit_ms = 100).await;
    let (_, reason) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(reason, EndReason::Rejected);
    assert_eq!(our_side.received("/voice").len(), 1);
    assert_eq!(codes(&twilio), [11200]);
}

#[tokio::test]
async fn answers_that_are_no_document_go_to_the_fallback() {
    let large = format!("<Response><Say>{}</Say></Response>", "a".repeat(66_000));
    for (answer, code) in [
        (Answer::of("application/json", "{}"), 12300),
        (Answer::status(200), 11200),
        (Answer::of("text/xml", "<Response><Say>a & b</Say></Response>"), 12100),
        (Answer::of("text/xml", ""), 12100),
        (Answer::of("text/xml", &large), 11750),
        (Answer::status(404), 11200),
    ] {
        let our_side = OurSide::start().await;
        our_side.answer("/voice", [answer]);
        our_side.answer("/fallback", [Answer::twiml("<Reject/>")]);
        let twilio = our_side.twilio().await;
        let (_, reason) = whole_call(&twilio, Caller::new()).await;
        assert_eq!((reason, codes(&twilio)), (EndReason::Rejected, vec![code]));
        let fallback = our_side.received("/fallback");
        assert_eq!(fallback[0].param("ErrorCode"), Some(code.to_string()));
    }
}

#[tokio::test]
async fn without_a_fallback_the_caller_hears_the_application_error() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::status(500)]);
    our_side.answer("/fallback", [Answer::status(500)]);
    let twilio = our_side.twilio().await;
    let (call, reason) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(reason, EndReason::ApplicationError);
    assert_eq!(codes(&twilio), [11200, 11200]);
    assert!(call.said()[0].contains("application error"));
}

#[tokio::test]
async fn a_redirect_status_is_followed_with_get_and_without_parameters() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::status(302).with("location", "/elsewhere?x=a%20b")]);
    our_side.answer("/elsewhere", [Answer::twiml("<Reject/>")]);
    let twilio = our_side.twilio().await;
    whole_call(&twilio, Caller::new()).await;
    let [request] = &our_side.received("/elsewhere")[..] else { panic!("one request") };
    assert_eq!((&request.method[..], &request.target[..]), ("GET", "/elsewhere?x=a%20b"));
    assert!(request.body.is_empty());
    assert!(verified(request));
}

#[tokio::test]
async fn a_get_webhook_is_signed_with_its_parameters_in_the_url() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Reject/>")]);
    let twilio = our_side.twilio().await;
    twilio.set_number(number().with("VoiceMethod", "GET"));
    whole_call(&twilio, Caller::new()).await;
    let [request] = &our_side.received("/voice")[..] else { panic!("one request") };
    assert!(request.target.contains("From=%2B15550199"), "{}", request.target);
    assert!(verified(request));
}

#[tokio::test]
async fn the_primary_token_signs_while_tokens_rotate() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Reject/>")]);
    let twilio = our_side.twilio().await;
    twilio.set_auth_tokens(vec!["new".to_owned(), TOKEN.to_owned()]);
    whole_call(&twilio, Caller::new()).await;
    assert!(!verified(&our_side.received("/voice")[0]));
    twilio.set_auth_tokens(vec![TOKEN.to_owned()]);
    whole_call(&twilio, Caller::new()).await;
    assert!(verified(&our_side.received("/voice")[1]));
}

#[tokio::test]
async fn the_end_of_a_call_is_told_to_the_status_callback() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Pause length=\"30\"/>")]);
    let twilio = our_side.twilio().await;
    twilio.repeat_callbacks(2);
    let call = call(&twilio, Caller::new());
    call.wait_for(LIMIT, |what| matches!(what, What::Verb { .. })).await.expect("the pause begins");
    call.hang_up();
    assert_eq!(call.wait_ended(LIMIT).await.expect("the call ends"), EndReason::CallerHungUp);
    let requests = our_side.received("/status");
    assert_eq!(requests.len(), 2, "twice, as asked");
    let told = |name: &str| requests[0].param(name);
    assert_eq!(told("CallStatus").as_deref(), Some("canceled"), "a leading pause does not answer");
    assert_eq!(told("CallbackSource").as_deref(), Some("call-progress-events"));
    assert_eq!((told("SequenceNumber").as_deref(), told("CallDuration").as_deref()), (Some("0"), Some("0")));
    assert!(told("Timestamp").is_some_and(|timestamp| timestamp.ends_with("+0000")));
    assert!(requests.iter().all(verified));
}
