//! The REST API.

use reqwest::Method;
use serde_json::{Value, json};
use tests::twilio::{Callee, Caller, EndReason, Fault, Outcome, Twilio, What};

use super::our_side::{ACCOUNT, Answer, BASE, LIMIT, NUMBER, OurSide, Socket, TOKEN, call, number};

/// One request with good credentials; status and JSON (null if there is none).
async fn request(twilio: &Twilio, method: Method, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let http = tests::hosts::http_client().timeout(LIMIT).build().expect("a client");
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/{path}", twilio.api_url());
    let request = if method == Method::POST {
        http.post(url).form(form)
    } else {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mark = if url.contains('?') { '&' } else { '?' };
        http.request(method, format!("{url}{mark}{query}"))
    };
    let request = request.basic_auth(ACCOUNT, Some(TOKEN));
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

async fn get(twilio: &Twilio, path: &str, query: &[(&str, &str)]) -> (u16, Value) {
    request(twilio, Method::GET, path, query).await
}

async fn post(twilio: &Twilio, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
    request(twilio, Method::POST, path, form).await
}

#[tokio::test]
async fn a_number_is_found_bought_changed_and_released() {
    let our_side = OurSide::start().await;
    let twilio = our_side.twilio().await;
    let (status, found) =
        get(&twilio, "AvailablePhoneNumbers/US/Local.json", &[("AreaCode", "415"), ("PageSize", "2")]).await;
    assert_eq!((status, found["available_phone_numbers"].as_array().map(Vec::len)), (200, Some(2)));
    let e164 = found["available_phone_numbers"][0]["phone_number"].as_str().expect("a number").to_owned();

    let voice_url = format!("{BASE}/voice");
    let (status, bought) =
        post(&twilio, "IncomingPhoneNumbers.json", &[("PhoneNumber", &e164), ("VoiceUrl", &voice_url)]).await;
    assert_eq!((status, &bought["phone_number"], &bought["voice_url"]), (201, &json!(e164), &json!(voice_url)));
    let (status, again) = post(&twilio, "IncomingPhoneNumbers.json", &[("PhoneNumber", &e164)]).await;
    assert_eq!((status, &again["code"]), (400, &json!(21422)));
    let (_, found) = get(&twilio, "AvailablePhoneNumbers/US/Local.json", &[("Contains", &e164)]).await;
    assert_eq!(found["available_phone_numbers"], json!([]));

    let resource = format!("IncomingPhoneNumbers/{}.json", bought["sid"].as_str().expect("a sid"));
    let (status, changed) = post(&twilio, &resource, &[("VoiceUrl", ""), ("VoiceFallbackUrl", &voice_url)]).await;
    assert_eq!((status, &changed["voice_url"], &changed["voice_fallback_url"]), (200, &json!(""), &json!(voice_url)));
    assert_eq!(get(&twilio, &resource, &[]).await.1["voice_fallback_url"], json!(voice_url));
    assert_eq!(request(&twilio, Method::DELETE, &resource, &[]).await.0, 204);
    let (status, gone) = get(&twilio, &resource, &[]).await;
    assert_eq!((status, &gone["code"], &gone["status"]), (404, &json!(20404), &json!(404)));
}

#[tokio::test]
async fn numbers_are_listed_page_by_page_and_found_by_number() {
    let our_side = OurSide::start().await;
    let twilio = our_side.twilio().await;
    twilio.set_number(tests::twilio::Number::new("+15550101"));
    let (_, found) = get(&twilio, "IncomingPhoneNumbers.json", &[("PhoneNumber", NUMBER)]).await;
    assert_eq!(found["incoming_phone_numbers"].as_array().map(Vec::len), Some(1));
    let (_, first) = get(&twilio, "IncomingPhoneNumbers.json", &[("PageSize", "1")]).await;
    let next = first["next_page_uri"].as_str().expect("a second page");
    let path = next.split_once(&format!("{ACCOUNT}/")).expect("a path of the account").1;
    let (_, second) = get(&twilio, path, &[]).await;
    assert_eq!(second["incoming_phone_numbers"][0]["phone_number"], "+15550101");
    assert_eq!(second["next_page_uri"], Value::Null);
}

#[tokio::test]
async fn bad_requests_have_twilios_codes() {
    let our_side = OurSide::start().await;
    let twilio = our_side.twilio().await;
    let long = "x".repeat(4001);
    for (path, form, status, code) in [
        ("IncomingPhoneNumbers.json", vec![("PhoneNumber", "12")], 400, 21421),
        ("IncomingPhoneNumbers.json", vec![("PhoneNumber", "+15005550000")], 400, 21422),
        ("IncomingPhoneNumbers.json", vec![("AreaCode", "533")], 400, 21452),
        ("IncomingPhoneNumbers.json", vec![("AreaCode", "5")], 400, 21451),
        ("IncomingPhoneNumbers.json", vec![("PhoneNumber", "+14155550121"), ("VoiceUrl", "edge/voice")], 400, 21402),
        ("Calls.json", vec![("To", "+15550177"), ("From", "+19990000")], 400, 21212),
        ("Calls.json", vec![("To", "+15550177"), ("From", NUMBER)], 400, 21205),
        ("Calls.json", vec![("To", "+15550177"), ("From", NUMBER), ("Twiml", &long)], 400, 32018),
        ("Calls/CA00000000000000000000000000000000.json", vec![("Status", "completed")], 404, 20404),
        ("Unknown.json", vec![], 404, 20404),
    ] {
        let (got, body) = post(&twilio, path, &form).await;
        assert_eq!((got, &body["code"]), (status, &json!(code)), "{path} {form:?}");
        assert!(body["message"].is_string() && body["more_info"].is_string());
    }
}

#[tokio::test]
async fn credentials_are_checked() {
    let our_side = OurSide::start().await;
    let twilio = our_side.twilio_with(|options| options.api_keys = vec![("SK1".to_owned(), "secret".to_owned())]).await;
    let http = tests::hosts::http_client().build().expect("a client");
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json", twilio.api_url());
    for (user, password, status) in
        [(ACCOUNT, TOKEN, 200), ("SK1", "secret", 200), (ACCOUNT, "no", 401), ("SK1", TOKEN, 401)]
    {
        let answer = http.get(&url).basic_auth(user, Some(password)).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{user} {password}");
    }
    assert_eq!(http.get(&url).send().await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn faults_come_on_command_and_pass() {
    let our_side = OurSide::start().await;
    let twilio = our_side.twilio().await;
    let numbers = "IncomingPhoneNumbers.json";
    twilio.fail_next(2, Fault::TooManyRequests);
    twilio.fail_next(1, Fault::BadGateway);
    assert_eq!(get(&twilio, numbers, &[]).await.1["code"], 20429);
    assert_eq!(get(&twilio, numbers, &[]).await.0, 429);
    assert_eq!(get(&twilio, numbers, &[]).await, (502, Value::Null));
    assert_eq!(get(&twilio, numbers, &[]).await.0, 200);

    twilio.fail_next(1, Fault::LostAnswer);
    let http = tests::hosts::http_client().timeout(std::time::Duration::from_millis(300)).build().expect("a client");
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/{numbers}", twilio.api_url());
    let lost = http.post(url).basic_auth(ACCOUNT, Some(TOKEN)).form(&[("PhoneNumber", "+14155550121")]).send().await;
    assert!(lost.is_err_and(|error| error.is_timeout()));
    assert!(twilio.number("+14155550121").is_some(), "the number was bought all the same");
}

#[tokio::test]
async fn a_created_call_rings_answers_and_reports_its_progress() {
    let our_side = OurSide::start().await;
    our_side.answer("/outbound", [Answer::twiml("<Say>Hello.</Say><Pause length=\"60\"/>")]);
    let twilio = our_side.twilio().await;
    twilio.set_callee("+15550177", Callee::answers_for_ms(2000));
    let (url, status_url) = (format!("{BASE}/outbound"), format!("{BASE}/status"));
    let mut form = vec![("To", "+15550177"), ("From", NUMBER), ("Url", &url[..]), ("StatusCallback", &status_url[..])];
    form.extend(["initiated", "answered", "completed"].map(|event| ("StatusCallbackEvent", event)));
    let (status, created) = post(&twilio, "Calls.json", &form).await;
    assert_eq!((status, &created["direction"]), (201, &json!("outbound-api")));
    let sid = created["sid"].as_str().expect("a sid");
    let call = twilio.find_call(sid).expect("the call");
    assert_eq!(call.wait_ended(LIMIT).await.expect("the call ends"), EndReason::CallerHungUp);
    assert_eq!(our_side.received("/outbound")[0].param("Direction").as_deref(), Some("outbound-api"));
    let mut told: Vec<(String, String)> = our_side
        .received("/status")
        .iter()
        .map(|request| {
            (request.param("SequenceNumber").unwrap_or_default(), request.param("CallStatus").unwrap_or_default())
        })
        .collect();
    told.sort();
    let expected = [("0", "initiated"), ("2", "in-progress"), ("3", "completed")];
    assert_eq!(told, expected.map(|(number, status)| (number.to_owned(), status.to_owned())));
    let (_, fetched) = get(&twilio, &format!("Calls/{sid}.json"), &[]).await;
    assert_eq!(fetched["status"], "completed");
    let (status, over) = post(&twilio, &format!("Calls/{sid}.json"), &[("Status", "completed")]).await;
    assert_eq!((status, &over["code"]), (400, &json!(21220)));
}

#[tokio::test]
async fn a_created_call_that_nobody_takes_fetches_nothing() {
    let our_side = OurSide::start().await;
    let twilio = our_side.twilio().await;
    twilio.set_callee("+15550177", Callee::with(Outcome::Busy));
    let url = format!("{BASE}/outbound");
    let (_, created) = post(&twilio, "Calls.json", &[("To", "+15550177"), ("From", NUMBER), ("Url", &url)]).await;
    let call = twilio.find_call(created["sid"].as_str().expect("a sid")).expect("the call");
    assert_eq!(call.wait_ended(LIMIT).await.expect("the call ends"), EndReason::Unanswered);
    assert_eq!(call.status().as_str(), "busy");
    assert!(our_side.received("/outbound").is_empty());
}

#[tokio::test]
async fn an_update_takes_a_live_call_out_of_its_stream() {
    let our_side = OurSide::streaming(|mut socket: Socket| async move {
        // Ends only with `stop`; what comes after it is the close.
        socket.next_of("stop").await;
        assert_eq!(socket.next().await, None);
    })
    .await;
    our_side.answer(
        "/voice",
        [Answer::twiml("<Connect action=\"/after\"><Stream url=\"wss://edge.tandem.test/media\"/></Connect>")],
    );
    let twilio = our_side.twilio().await;
    twilio.set_number(number());
    let call = call(&twilio, Caller::new());
    call.wait_for(LIMIT, |what| matches!(what, What::StreamStarted { .. })).await.expect("the stream starts");
    let path = format!("Calls/{}.json", call.sid());
    let twiml = "<Response><Say>Please hold.</Say></Response>";
    assert_eq!(post(&twilio, &path, &[("Twiml", twiml)]).await.0, 200);
    assert_eq!(call.wait_ended(LIMIT).await.expect("the call ends"), EndReason::EndOfDocument);
    assert_eq!(call.verbs(), ["Connect", "Say"]);
    assert!(our_side.received("/after").is_empty(), "the new document replaces what the old one had in mind");
    assert_eq!(call.stream().and_then(|stream| stream.ended).as_deref(), Some("the call left it"));
}

#[tokio::test]
async fn a_live_call_is_completed() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Say loop=\"0\">Please hold.</Say>")]);
    let twilio = our_side.twilio().await;
    let call = call(&twilio, Caller::new());
    call.wait_for(LIMIT, |what| *what == What::Answered).await.expect("the call is answered");
    let path = format!("Calls/{}.json", call.sid());
    assert_eq!(post(&twilio, &path, &[("Status", "completed")]).await.0, 200);
    assert_eq!(call.wait_ended(LIMIT).await.expect("the call ends"), EndReason::CompletedByApi);
}
