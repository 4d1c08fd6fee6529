//! Turns that OpenAI does not take by itself: a protected first message, words before an interruption, keys; and holes in
//! the caller's audio.

use super::*;

fn ours() -> Value {
    let mut event = confirmed("audio/pcmu");
    event["session"]["audio"]["input"]["turn_detection"] =
        json!({"type": "server_vad", "create_response": false, "interrupt_response": false});
    event
}

fn speech_stopped() -> Value {
    json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 0, "item_id": "next"})
}

const LIFT: &str = r#"{"type":"session.update","event_id":"protection"}"#;

/// In the middle of a first message that cannot be interrupted; gives its marks.
fn protected() -> (Script, Vec<String>) {
    let mut script = Script::with(|setup| {
        setup.first_ask = Some(Ask::Say("Good morning.".into()));
        setup.protection = Some(LIFT.into());
    });
    script.model(&ours());
    assert_eq!(script.sent_to_model()[0]["type"], "response.create");
    script.model(&asked("r1", 1));
    script.agent_speaks("r1", "a", 1000);
    let marks = mark_names(&script.sent_to_caller());
    (script, marks)
}

#[test]
fn a_protected_first_message_is_heard_whole_and_what_was_said_meanwhile_is_answered_after_it() {
    let (mut script, marks) = protected();
    script.now = 300;
    script.model(&speech_started());
    script.model(&speech_stopped());
    script.model(&committed("c1"));
    script.caller(&json!({"event": "dtmf", "dtmf": {"digit": "7"}}));
    script.agent_speaks("r1", "a", 100);
    script.model(&done("r1", "completed"));
    let sent = script.take();
    assert!(sent.iter().all(|action| *action != Action::ToCaller(r#"{"event":"clear","streamSid":"MZ1"}"#.into())));
    let events: Vec<_> = sent.iter().filter(|action| matches!(action, Action::ToModel(_))).collect();
    assert!(events.is_empty(), "nothing is cancelled and nothing asked for: {events:?}");

    script.now = 1200;
    for name in marks {
        script.caller(&mark(&name));
    }
    assert!(script.sent_to_model().is_empty(), "the last piece is not played");
    let last =
        script.call.playback.last_sent_ms(&crate::bridge::playback::Part { item_id: "a".into(), content_index: 0 });
    assert_eq!(last, Some(1100));
    script.caller(&mark("g0.5"));
    let sent = script.sent_to_model();
    assert_eq!((&sent[0]["event_id"], &sent[1]["type"]), (&json!("protection"), &json!("response.create")));
}

#[test]
fn a_protection_ends_even_if_no_mark_comes_back() {
    let (mut script, _) = protected();
    script.model(&done("r1", "completed"));
    script.take();
    script.now = script.call.deadline().unwrap();
    assert_eq!(script.now, 3_000);
    script.input(Input::Tick);
    assert_eq!(script.sent_to_model()[0]["event_id"], "protection");
}

#[test]
fn until_the_turns_are_given_back_the_call_takes_them() {
    let (mut script, _) = protected();
    script.model(&done("r1", "completed"));
    script.now = 3_000;
    script.input(Input::Tick);
    script.take();
    script.model(&speech_started());
    script.model(&committed("c1"));
    assert_eq!(script.sent_to_model().last().unwrap()["type"], "response.create");
    script.model(&confirmed("audio/pcmu"));
    script.model(&asked("r2", 2));
    script.model(&done("r2", "completed"));
    script.model(&speech_started());
    script.model(&committed("c2"));
    assert!(script.sent_to_model().is_empty(), "now the server answers");
}

/// An agent that falls silent after two words, in the middle of a long answer.
fn speaking() -> Script {
    let mut script = Script::with(|setup| setup.interrupt_after_words = 2);
    script.model(&ours());
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 5000);
    script.take();
    script
}

#[test]
fn words_interrupt_when_there_are_enough_of_them() {
    let mut script = speaking();
    script.now = 1000;
    script.caller(&media(1));
    script.take();
    script.model(&speech_started());
    assert!(script.take().is_empty());
    script.now = script.call.deadline().unwrap();
    assert_eq!(script.now, 1750, "no frame comes, so the hole is filled first");
    script.input(Input::Tick);
    script.now = script.call.deadline().unwrap();
    assert_eq!(script.now, 1800, "two words");
    script.take();
    script.input(Input::Tick);
    let actions = script.take();
    assert_eq!(actions[0], Action::ToCaller(r#"{"event":"clear","streamSid":"MZ1"}"#.into()));
    assert_eq!(actions[1], Action::ToModel(r#"{"response_id":"r1","type":"response.cancel"}"#.into()));
    let Action::ToModel(truncate) = &actions[2] else { panic!("{actions:?}") };
    assert!(truncate.contains("conversation.item.truncate"));
    script.model(&done("r1", "cancelled"));
    script.model(&committed("c1"));
    assert_eq!(script.sent_to_model()[0]["type"], "response.create");
}

#[test]
fn an_aside_does_not_interrupt_and_is_not_answered() {
    let mut script = speaking();
    script.now = 1000;
    script.model(&speech_started());
    script.now = 1300;
    script.model(&speech_stopped());
    script.model(&committed("c1"));
    script.now = 3000;
    script.input(Input::Tick);
    assert!(script.take().is_empty());
    assert!(script.call.agent_speaks());
    script.model(&done("r1", "completed"));
    assert!(script.sent_to_model().is_empty(), "nor afterwards");
}

#[test]
fn keys_interrupt_and_reach_the_model_as_a_turn_of_the_callers() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 5000);
    script.take();
    for key in ["4", "2"] {
        script.now += 400;
        script.caller(&json!({"event": "dtmf", "dtmf": {"digit": key}}));
    }
    assert!(script.take().is_empty(), "there may be more of them");
    script.now = script.call.deadline().unwrap();
    script.input(Input::Tick);
    let actions = script.take();
    assert!(
        matches!(&actions[0], Action::Line(line) if line.role == Role::Caller && line.text == "[keys pressed: 42]")
    );
    assert_eq!(actions[1], Action::ToCaller(r#"{"event":"clear","streamSid":"MZ1"}"#.into()));
    let Action::ToModel(item) = &actions[actions.len() - 1] else { panic!("{actions:?}") };
    assert!(item.contains("[keys pressed: 42]") && item.contains("input_text"), "{item}");
    script.model(&done("r1", "cancelled"));
    assert_eq!(script.sent_to_model()[0]["type"], "response.create");
}

#[test]
fn keys_before_the_session_are_not_lost() {
    let mut script = Script::with(|setup| setup.keypad = Some(Keypad { timeout_ms: None, delimiters: "#".into() }));
    for key in ["9", "#"] {
        script.caller(&json!({"event": "dtmf", "dtmf": {"digit": key}}));
    }
    assert!(script.sent_to_model().is_empty());
    script.model(&confirmed("audio/pcmu"));
    let kinds: Vec<_> = script.sent_to_model().iter().map(|event| event["type"].clone()).collect();
    // The keys, and that the call goes on after them.
    assert_eq!(kinds, ["conversation.item.create", "conversation.item.create", "response.create"]);
}

#[test]
fn a_turn_can_end_in_a_hole() {
    let frame = |at: u64| {
        let payload = STANDARD.encode([1; 160]);
        json!({"event": "media", "media": {"timestamp": at.to_string(), "payload": payload}})
    };
    let mut script = Script::talking();
    script.caller(&frame(20));
    script.model(&speech_started());
    script.take();
    script.now = script.call.deadline().unwrap();
    script.input(Input::Tick);
    let sent = script.sent_to_model();
    let silence = STANDARD.decode(sent[0]["audio"].as_str().unwrap()).unwrap();
    assert_eq!(silence, vec![0xFF; 750 * 8]);
    script.model(&speech_stopped());
    script.model(&committed("c1"));
    script.model(&created("r1"));
    assert_eq!(script.soon(), None, "nobody speaks, so nothing is missed");
    // 980 ms after the first frame ended; 750 of them are filled.
    script.caller(&frame(1020));
    let sent = script.sent_to_model();
    assert_eq!(STANDARD.decode(sent[0]["audio"].as_str().unwrap()).unwrap().len(), 230 * 8);
    assert_eq!(sent.len(), 2);
}

#[test]
fn a_caller_who_speaks_is_not_talked_over_by_the_outcome_of_a_tool() {
    // Whether the output is in the conversation when the server answers the caller.
    for is_seen in [false, true] {
        let mut script = Script::talking();
        script.model(&created("r1"));
        script.model(&json!({"type": "response.output_item.done", "item": {"id": "i", "type": "function_call",
            "status": "completed", "call_id": "c", "name": "f", "arguments": "{}"}}));
        script.model(&done("r1", "completed"));
        script.model(&speech_started());
        script.take();
        script.input(Input::ToolDone { call_id: "c".into(), output: "one".into(), command: None });
        let kinds: Vec<_> = script.sent_to_model().iter().map(|event| event["type"].clone()).collect();
        assert_eq!(kinds, ["conversation.item.create"]);
        script.model(&committed("c1"));
        if is_seen {
            script.model(
                &json!({"type": "conversation.item.added", "item": {"id": "o", "type": "function_call_output"}}),
            );
        }
        script.model(&created("r2"));
        script.model(&done("r2", "completed"));
        let asked = script.sent_to_model().len();
        assert_eq!(asked, usize::from(!is_seen), "what was said already is not said again");
    }
}

#[test]
fn the_model_goes_on_after_a_tool_that_openai_ran_itself() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.model(&json!({"type": "response.mcp_call.completed", "item_id": "m", "output_index": 0}));
    assert!(script.sent_to_model().is_empty());
    script.model(&done("r1", "completed"));
    assert_eq!(script.sent_to_model()[0]["type"], "response.create");
}
