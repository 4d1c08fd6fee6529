//! Recorded scripts of events, on a clock that the test moves.

mod departure;
mod leaving;
mod properties;
mod reopening;
mod ringing;
mod turns;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::failures::SERVER_AGAIN_MS;
use super::*;

const HOUR: Millis = 3_600_000;

struct Script {
    call: Call,
    now: Millis,
    out: Vec<Action>,
}

impl Script {
    fn opening(greeting: Option<&str>) -> Self {
        Self::with(|setup| setup.first_ask = greeting.map(|words| Ask::Say(words.to_owned())))
    }

    fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let start: twilio::Start = serde_json::from_value(json!({
            "streamSid": "MZ1", "callSid": "CA1",
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        }))
        .unwrap();
        let mut setup = Setup {
            stream_sid: start.stream_sid().unwrap(),
            opening: Vec::new(),
            past: Vec::new(),
            broke_off: false,
            first_ask: None,
            first_after_ms: 0,
            protection: None,
            interrupt_after_words: 0,
            keypad: None,
            rules: Rules::default(),
            next_position: 0,
        };
        change(&mut setup);
        Self { call: Call::new(setup, 0), now: 0, out: Vec::new() }
    }

    fn talking() -> Self {
        let mut script = Self::opening(None);
        script.session();
        assert_eq!(script.take(), [Action::TakeSession]);
        script
    }

    fn input(&mut self, input: Input<'_>) {
        self.call.handle(self.now, input, &mut self.out);
    }

    /// A session is there that lasts for an hour.
    fn session(&mut self) {
        self.input(Input::SessionReady { ends: self.now + HOUR, turns: Turns::Server });
    }

    /// The first confirmation is that of a session which is there; the pump takes note of it.
    fn model(&mut self, event: &Value) {
        let text = event.to_string();
        let input = match Event::parse(&text).unwrap() {
            Event::SessionUpdated { turns, .. } if matches!(self.call.phase, Phase::Opening) => {
                Input::SessionReady { ends: self.now + HOUR, turns }
            }
            event => Input::Model(event),
        };
        self.call.handle(self.now, input, &mut self.out);
    }

    /// What is waited for, beside the end of the session.
    fn soon(&self) -> Option<Millis> {
        self.call.deadline().filter(|at| *at < self.now + HOUR / 2)
    }

    fn caller(&mut self, event: &Value) {
        let text = event.to_string();
        self.call.handle(self.now, Input::Caller(twilio::Event::parse(&text).unwrap()), &mut self.out);
    }

    fn agent_speaks(&mut self, response: &str, item: &str, ms: usize) {
        let delta = STANDARD.encode(vec![0x55; ms * 8]);
        self.model(&json!({"type": "response.output_audio.delta", "response_id": response, "item_id": item,
            "content_index": 0, "delta": delta}));
    }

    /// What is to be done, without what is only measured.
    fn take(&mut self) -> Vec<Action> {
        self.take_all().into_iter().filter(|action| !is_measured(action)).collect()
    }

    fn measured(&mut self) -> Vec<Action> {
        self.take_all().into_iter().filter(is_measured).collect()
    }

    fn take_all(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    fn sent_to_model(&mut self) -> Vec<Value> {
        let parse = |action| match action {
            Action::ToModel(text) => serde_json::from_str(&text).ok(),
            _ => None,
        };
        self.take().into_iter().filter_map(parse).collect()
    }

    fn sent_to_caller(&mut self) -> Vec<Value> {
        let parse = |action| match action {
            Action::ToCaller(text) => serde_json::from_str(&text).ok(),
            _ => None,
        };
        self.take().into_iter().filter_map(parse).collect()
    }
}

fn confirmed(format: &str) -> Value {
    json!({"type": "session.updated", "session": {"audio": {
        "input": {"format": {"type": format}}, "output": {"format": {"type": "audio/pcmu"}}}}})
}

fn media(byte: u8) -> Value {
    json!({"event": "media", "media": {"payload": STANDARD.encode([byte; 160])}})
}

fn mark(name: &str) -> Value {
    json!({"event": "mark", "mark": {"name": name}})
}

fn speech_started() -> Value {
    json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "next"})
}

fn committed(item: &str) -> Value {
    json!({"type": "input_audio_buffer.committed", "item_id": item, "previous_item_id": null})
}

fn created(id: &str) -> Value {
    json!({"type": "response.created", "response": {"id": id}})
}

/// The response that our request number `nth` made.
fn asked(id: &str, nth: u32) -> Value {
    json!({"type": "response.created", "response": {"id": id, "metadata": {"tandem": format!("create_{nth}")}}})
}

fn done(id: &str, status: &str) -> Value {
    json!({"type": "response.done", "response": {"id": id, "status": status, "usage": null}})
}

fn mark_names(messages: &[Value]) -> Vec<String> {
    messages.iter().filter_map(|m| m["mark"]["name"].as_str().map(str::to_owned)).collect()
}

fn is_measured(action: &Action) -> bool {
    matches!(action, Action::SetUp(_) | Action::Turn(_) | Action::Interrupted | Action::TranscriptUsage(_))
}

#[test]
fn times_interruptions_and_what_transcripts_use_are_told() {
    let mut script = Script::opening(None);
    script.now = 340;
    script.model(&confirmed("audio/pcmu"));
    assert_eq!(script.measured(), [Action::SetUp(340)]);

    script.now = 2000;
    script.model(&json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 1500, "item_id": "caller"}));
    let usage = json!({"type": "duration", "seconds": 2});
    script.model(&json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": "caller",
        "content_index": 0, "transcript": "Hello?", "usage": usage}));
    assert_eq!(script.measured(), [Action::TranscriptUsage(usage)]);
    script.model(&json!({"type": "response.created", "response": {"id": "r1"}}));
    script.now = 2450;
    script.agent_speaks("r1", "agent", 400);
    let marks: Vec<Value> = script.sent_to_caller().into_iter().filter(|sent| sent["event"] == "mark").collect();
    script.now = 2700;
    script.caller(&json!({"event": "mark", "mark": {"name": marks[0]["mark"]["name"]}}));
    let turn = Turn { ended_ago_ms: 700, first_audio_ms: 450, first_heard_ms: Some(700) };
    assert_eq!(script.measured(), [Action::Turn(turn)]);
    script.model(&json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 2500, "item_id": "next"}));
    assert_eq!(script.measured(), [Action::Interrupted]);
}

#[test]
fn audio_is_held_until_there_is_a_session() {
    let mut script = Script::opening(None);
    script.caller(&media(1));
    script.caller(&media(2));
    assert!(script.take().is_empty());
    script.model(&confirmed("audio/pcmu"));
    script.caller(&media(3));
    let sent: Vec<_> = script.sent_to_model().iter().map(|m| m["audio"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sent, [1, 2, 3].map(|byte| STANDARD.encode([byte; 160])));
}

#[test]
fn held_audio_is_bounded_and_the_oldest_goes() {
    let mut script = Script::opening(None);
    for _ in 0..1100 {
        script.caller(&media(7));
    }
    script.session();
    // 20 s of 20 ms frames.
    assert_eq!(script.sent_to_model().len(), 1000);
}

#[test]
fn without_a_session_the_stream_ends_with_the_call_alive() {
    let mut script = Script::opening(None);
    script.input(Input::SessionUnavailable(Unavailable::OutOfQuota));
    let reason = EndReason::ModelUnavailable(Unavailable::OutOfQuota);
    assert_eq!(script.take(), [Action::End(reason)]);
    assert!(!reason.ends_call());
    script.session();
    assert!(script.take().is_empty(), "nothing comes after the end");
}

#[test]
fn the_greeting_is_asked_for_once() {
    let mut script = Script::opening(Some("Good morning."));
    script.model(&confirmed("audio/pcmu"));
    let sent = script.sent_to_model();
    assert_eq!(sent[0]["type"], "response.create");
    assert!(sent[0]["response"]["instructions"].as_str().unwrap().ends_with("Good morning."));
    script.model(&confirmed("audio/pcmu"));
    assert!(script.sent_to_model().is_empty());
}

#[test]
fn agent_audio_passes_in_pieces_with_a_mark_after_each() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 560);
    let sent = script.sent_to_caller();
    let kinds: Vec<_> = sent.iter().map(|m| m["event"].as_str().unwrap()).collect();
    // The last 20 ms have their mark when it is known that they are the last.
    assert_eq!(kinds, ["media", "mark", "media", "mark", "media", "mark"]);
    script.agent_speaks("r1", "a", 20);
    assert_eq!(script.sent_to_caller().len(), 1);
    script.model(&json!({"type": "response.output_audio.done", "response_id": "r1", "item_id": "a"}));
    assert_eq!(script.sent_to_caller()[0]["event"], "mark");
    script.model(&done("r1", "completed"));
    assert!(script.take().is_empty());
    let bytes: usize =
        sent.iter().filter_map(|m| m["media"]["payload"].as_str()).map(|p| STANDARD.decode(p).unwrap().len()).sum();
    assert_eq!(bytes, 4480);
}

#[test]
fn barge_in_clears_first_then_truncates_at_what_was_heard_and_drops_late_audio() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.model(
        &json!({"type": "response.output_audio_transcript.delta", "item_id": "a", "delta": "one two three four"}),
    );
    script.agent_speaks("r1", "a", 1000);
    let marks = mark_names(&script.sent_to_caller());
    script.now = 210;
    script.caller(&mark(&marks[0]));
    script.now = 510;
    script.model(&speech_started());

    let actions = script.take();
    assert_eq!(actions[0], Action::ToCaller(r#"{"event":"clear","streamSid":"MZ1"}"#.into()));
    let Action::ToModel(truncate) = &actions[1] else { panic!("{actions:?}") };
    let truncate: Value = serde_json::from_str(truncate).unwrap();
    assert_eq!(truncate["type"], "conversation.item.truncate");
    assert_eq!(truncate["item_id"], "a");
    // The first piece of 1599 bytes is confirmed, 300 ms went by since.
    assert_eq!(truncate["audio_end_ms"], (1599 + 300 * 8) / 8);
    let Action::Line(line) = &actions[2] else { panic!("{actions:?}") };
    assert_eq!((line.text.as_str(), line.interrupted), ("one two", true));

    // Twilio returns all pending marks after a clear; they must not count as heard.
    for name in &marks[1..] {
        script.caller(&mark(name));
    }
    script.agent_speaks("r1", "a", 200);
    assert!(script.take().is_empty());
    script.model(&done("r1", "cancelled"));
    script.model(&created("r2"));
    script.agent_speaks("r2", "b", 200);
    assert_eq!(script.sent_to_caller()[0]["event"], "media");
}

#[test]
fn barge_in_after_generation_ended_still_clears() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 3000);
    script.model(&done("r1", "completed"));
    script.take();
    script.now = 100;
    script.model(&speech_started());
    assert_eq!(script.sent_to_caller(), [json!({"event": "clear", "streamSid": "MZ1"})]);
}

#[test]
fn several_items_are_cut_each_at_its_own_position_and_unheard_ones_deleted() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    for item in ["a", "b", "c"] {
        script.agent_speaks("r1", item, 100);
    }
    script.take();
    script.now = 150;
    script.model(&speech_started());
    let truncate = |item: &str, ms: u64| json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": ms});
    assert_eq!(script.sent_to_model(), [truncate("a", 100), truncate("b", 50)]);
    // Of the third there is more to come, and of a fourth; they are deleted when they are complete.
    script.agent_speaks("r1", "c", 100);
    script.agent_speaks("r1", "d", 100);
    assert!(script.take().is_empty());
    script.model(&done("r1", "cancelled"));
    let deleted: Vec<_> = script.sent_to_model().iter().map(|event| event["item_id"].clone()).collect();
    assert_eq!(deleted, ["c", "d"]);
}

#[test]
fn an_unheard_item_of_a_finished_response_is_deleted_at_once() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 100);
    script.agent_speaks("r1", "b", 100);
    script.model(&done("r1", "completed"));
    script.take();
    script.now = 60;
    script.model(&speech_started());
    let kinds: Vec<_> = script.sent_to_model().iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["conversation.item.truncate", "conversation.item.delete"]);
}

/// Everything that came was heard, and more is on its way when the caller speaks.
#[test]
fn an_item_that_goes_on_unheard_is_cut_where_hearing_ended() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 160);
    let marks = mark_names(&script.sent_to_caller());
    script.now = 180;
    script.caller(&mark(marks.last().unwrap()));
    script.model(&speech_started());
    script.agent_speaks("r1", "a", 300);
    assert!(script.take().is_empty(), "nothing plays, so nothing is cleared");
    script.model(&done("r1", "cancelled"));
    let sent = script.sent_to_model();
    assert_eq!((&sent[0]["item_id"], &sent[0]["audio_end_ms"]), (&json!("a"), &json!(160)));
}

#[test]
fn speech_while_nothing_plays_sends_nothing() {
    let mut script = Script::talking();
    script.model(&speech_started());
    assert!(script.take().is_empty());
}

#[test]
fn tools_run_at_once_and_one_response_follows_all_outputs() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    let call = |id: &str| {
        json!({"type": "response.output_item.done", "item": {"id": format!("item_{id}"), "type": "function_call",
            "status": "completed", "call_id": id, "name": "f", "arguments": "{}"}})
    };
    script.model(&call("c1"));
    script.model(&call("c2"));
    script.model(&call("c1"));
    let runs = script.take().into_iter().filter(|a| matches!(a, Action::RunTool(_))).count();
    assert_eq!(runs, 2, "a repeated item runs nothing");
    script.input(Input::ToolDone { call_id: "c2".into(), output: "two".into(), command: None });
    assert_eq!(script.sent_to_model().len(), 1);
    script.input(Input::ToolDone { call_id: "c1".into(), output: "one".into(), command: None });
    let sent = script.sent_to_model();
    assert_eq!(sent[0]["item"]["output"], "one");
    assert_eq!(sent.len(), 1, "the first response still runs");
    script.model(&done("r1", "completed"));
    assert_eq!(script.sent_to_model()[0]["type"], "response.create");
    script.input(Input::ToolDone { call_id: "c1".into(), output: "again".into(), command: None });
    assert!(script.take().is_empty());
}

#[test]
fn harmless_errors_never_end_a_call() {
    let mut script = Script::talking();
    for code in ["response_cancel_not_active", "invalid_value", "input_audio_buffer_commit_empty", "brand_new"] {
        script.model(&json!({"type": "error", "error": {"code": code, "message": "", "event_id": null}}));
    }
    assert!(script.take().iter().all(|action| matches!(action, Action::Fault { .. })));
    script.model(&json!({"type": "error", "error": {"code": "session_expired", "message": ""}}));
    assert_eq!(script.take().last(), Some(&Action::OpenSession));
}

fn failed(id: &str, code: &str) -> Value {
    json!({"type": "response.done", "response": {"id": id, "status": "failed",
        "status_details": {"error": {"code": code, "message": ""}}, "usage": {"total_tokens": 3}}})
}

#[test]
fn a_failed_response_is_asked_for_again_and_a_spoiled_session_given_up() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.model(&failed("r1", "server_error"));
    let fault = Action::Fault { code: "server_error".into(), context: "response" };
    assert_eq!(script.take(), [Action::Usage(json!({"total_tokens": 3})), fault]);
    assert_eq!(script.call.deadline(), Some(SERVER_AGAIN_MS));
    script.now += SERVER_AGAIN_MS;
    script.input(Input::Tick);
    assert_eq!(script.sent_to_model()[0]["type"], "response.create");
    script.model(&asked("r2", 1));
    script.model(&failed("r2", "server_error"));
    assert_eq!(script.take().last(), Some(&Action::OpenSession));
    script.session();
    assert_eq!(script.sent_to_model()[0]["type"], "response.create", "the caller still waits");
}

#[test]
fn a_limit_is_waited_for_as_long_as_it_lasts() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.model(&json!({"type": "rate_limits.updated", "rate_limits": [
        {"name": "requests", "limit": 100, "remaining": 99, "reset_seconds": 60.0},
        {"name": "tokens", "limit": 1000, "remaining": 0, "reset_seconds": 4.5}]}));
    script.model(&failed("r1", "rate_limit_exceeded"));
    assert_eq!(script.call.deadline(), Some(4_500));
    for nth in 1..4 {
        script.now = script.call.deadline().unwrap();
        script.input(Input::Tick);
        assert_eq!(script.sent_to_model()[0]["type"], "response.create");
        script.model(&asked("r", nth));
        script.model(&failed("r", "rate_limit_exceeded"));
    }
    assert_eq!(script.take().last(), Some(&Action::OpenSession), "not for ever");
}

#[test]
fn a_turn_that_was_cut_off_is_explained_once() {
    for reason in ["content_filter", "max_output_tokens"] {
        let incomplete = |id: &str| {
            json!({"type": "response.done", "response": {"id": id, "status": "incomplete",
            "status_details": {"reason": reason}, "usage": null}})
        };
        let mut script = Script::talking();
        script.model(&created("r1"));
        script.model(&incomplete("r1"));
        let sent = script.sent_to_model();
        assert_eq!((&sent[0]["item"]["role"], &sent[1]["type"]), (&json!("system"), &json!("response.create")));
        script.model(&asked("r2", 1));
        script.model(&incomplete("r2"));
        assert!(script.sent_to_model().is_empty());
    }
}

#[test]
fn after_a_success_failures_count_anew_and_the_caller_makes_a_retry_needless() {
    let mut script = Script::talking();
    for round in 0..4 {
        script.model(&created("bad"));
        script.model(&failed("bad", "server_error"));
        if round % 2 == 0 {
            script.model(&speech_started());
            script.model(&committed("c"));
        }
        script.model(&created("good"));
        assert_eq!(script.soon(), None);
        script.model(&done("good", "completed"));
    }
    assert!(script.sent_to_model().is_empty());
    script.model(&created("bad"));
    script.model(&failed("bad", "insufficient_quota"));
    let reason = EndReason::ModelUnavailable(Unavailable::OutOfQuota);
    assert_eq!(script.take().last(), Some(&Action::End(reason)), "no second try would do better");
}

#[test]
fn a_greeting_that_failed_is_said_again_as_a_greeting() {
    let mut script = Script::opening(Some("Good morning."));
    script.model(&confirmed("audio/pcmu"));
    script.model(&asked("r1", 1));
    script.model(&failed("r1", "server_error"));
    script.take();
    script.now += SERVER_AGAIN_MS;
    script.input(Input::Tick);
    let sent = script.sent_to_model();
    assert!(sent[0]["response"]["instructions"].as_str().unwrap().ends_with("Good morning."));
}

#[test]
fn a_turn_that_was_owed_is_taken() {
    for owes_turn in [true, false] {
        let mut script = Script::with(|setup| {
            setup.first_ask = owes_turn.then_some(Ask::Turn);
            setup.past = vec![Said::Caller("Hi.".into())];
        });
        script.session();
        let sent = script.sent_to_model();
        let kinds: Vec<_> = sent.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let expected: &[&str] = &["conversation.item.create", "conversation.item.create", "response.create"];
        assert_eq!(kinds, expected[..2 + usize::from(owes_turn)]);
    }
}

#[test]
fn hanging_up_in_mid_sentence_keeps_what_was_heard() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.model(
        &json!({"type": "response.output_audio_transcript.delta", "item_id": "a", "delta": "one two three four"}),
    );
    script.agent_speaks("r1", "a", 1000);
    script.take();
    script.now = 500;
    script.caller(&json!({"event": "stop"}));
    let actions = script.take();
    assert!(matches!(&actions[0], Action::Line(line) if line.text == "one two" && line.heard_ms == Some(500)));
    assert_eq!(actions[1..], [Action::End(EndReason::CallerHungUp)]);
}
