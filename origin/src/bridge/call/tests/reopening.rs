//! From one session to the next.

use super::*;

/// Texts of the messages by which a session is told of the past, with their roles.
fn told(messages: &[Value]) -> Vec<(String, String)> {
    let items = messages.iter().filter(|message| message["type"] == "conversation.item.create");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    items.map(|message| (text(&message["item"]["role"]), text(&message["item"]["content"][0]["text"]))).collect()
}

fn kinds(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["type"].as_str().unwrap()).collect()
}

fn transcribed(item: &str, text: &str) -> Value {
    json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": item, "transcript": text})
}

fn agent_said(item: &str, text: &str) -> Value {
    json!({"type": "response.output_audio_transcript.done", "item_id": item, "transcript": text})
}

/// The caller has asked, and the answer has been heard.
fn after_one_turn() -> Script {
    let mut script = Script::talking();
    script.model(&speech_started());
    script.caller(&media(1));
    script.model(&committed("u1"));
    script.model(&transcribed("u1", "When are you open?"));
    script.model(&created("r1"));
    script.agent_speaks("r1", "a1", 100);
    script.model(&agent_said("a1", "At nine."));
    script.model(&done("r1", "completed"));
    let marks = mark_names(&script.sent_to_caller());
    script.now = 200;
    script.caller(&mark(&marks[0]));
    script.take();
    script
}

#[test]
fn a_lost_session_is_replaced_and_told_what_was_said() {
    let mut script = after_one_turn();
    script.input(Input::ModelGone);
    assert_eq!(script.take(), [Action::OpenSession]);
    script.model(&created("late"));
    script.caller(&media(2));
    assert!(script.take().is_empty());
    script.session();
    let sent = script.sent_to_model();
    let past = told(&sent);
    assert_eq!(past[0], ("user".to_owned(), "When are you open?".to_owned()));
    assert_eq!(past[1], ("assistant".to_owned(), "At nine.".to_owned()));
    assert!(past[2].0 == "system" && past[2].1.contains("Do not greet"));
    assert_eq!(kinds(&sent)[3..], ["input_audio_buffer.append"; 1], "nobody waits for an answer");
    assert_eq!(sent[3]["audio"], STANDARD.encode([2; 160]));
}

#[test]
fn an_answer_that_was_due_is_asked_of_the_next_session() {
    let mut script = Script::talking();
    script.model(&speech_started());
    script.model(&committed("u1"));
    script.model(&transcribed("u1", "When are you open?"));
    script.take();
    script.input(Input::ModelGone);
    script.session();
    assert_eq!(kinds(&script.sent_to_model()).last(), Some(&"response.create"));
}

#[test]
fn a_caller_who_is_back_may_speak_first_and_hears_the_agent_if_they_do_not() {
    let back = || {
        let mut script = Script::with(|setup| {
            setup.past = vec![Said::Agent("And your name?".into())];
            setup.first_ask = Some(Ask::Turn);
            setup.first_after_ms = 2_000;
        });
        script.now = 300;
        script.session();
        assert!(!kinds(&script.sent_to_model()).contains(&"response.create"));
        assert_eq!(script.soon(), Some(2_300));
        script
    };
    let mut silent = back();
    silent.now = 2_300;
    silent.input(Input::Tick);
    assert_eq!(kinds(&silent.sent_to_model()), ["response.create"]);

    let mut spoken = back();
    spoken.now = 1_000;
    spoken.model(&speech_started());
    spoken.now = 2_300;
    spoken.input(Input::Tick);
    spoken.model(&committed("u1"));
    spoken.model(&created("r1"));
    spoken.agent_speaks("r1", "a1", 100);
    spoken.model(&done("r1", "completed"));
    assert!(!kinds(&spoken.sent_to_model()).contains(&"response.create"), "the answer is enough");
}

/// Nobody knows whether what was sent last went into a dead socket.
#[test]
fn of_a_lost_stream_only_what_marks_vouch_for_was_heard() {
    for (end, heard_ms) in [(Input::CallerGone, 199), (Input::Caller(twilio::Event::Stop), 1_000)] {
        let mut script = Script::talking();
        script.model(&created("r1"));
        script.agent_speaks("r1", "a1", 1_000);
        script.model(&agent_said("a1", "One two three four five six."));
        let marks = mark_names(&script.sent_to_caller());
        script.now = 210;
        script.caller(&mark(&marks[0]));
        script.now = 9_000;
        script.take();
        script.input(end);
        let actions = script.take();
        let Action::Line(line) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!(line.heard_ms, Some(heard_ms));
    }
}

#[test]
fn words_that_nobody_understood_are_heard_again_and_answered_by_whoever_hears_them() {
    for is_said in [false, true] {
        let mut script = Script::talking();
        script.model(&speech_started());
        script.caller(&media(1));
        if is_said {
            script.model(&committed("u1"));
            script.model(&created("r1"));
        }
        script.take();
        script.input(Input::ModelGone);
        script.session();
        let sent = script.sent_to_model();
        assert_eq!(kinds(&sent), ["input_audio_buffer.append"], "{is_said}");
    }
}

#[test]
fn an_answer_that_broke_off_goes_on_from_where_it_was_heard() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    let words = "one two three four five six seven eight nine ten";
    script.model(&json!({"type": "response.output_audio_transcript.delta", "item_id": "a", "delta": words}));
    script.agent_speaks("r1", "a", 1000);
    script.take();
    script.input(Input::ModelGone);
    let actions = script.take();
    assert!(matches!(&actions[0], Action::Line(line) if line.text == "one two three" && line.interrupted));
    script.session();
    let sent = script.sent_to_model();
    let past = told(&sent);
    assert_eq!(past[0], ("assistant".to_owned(), "one two three".to_owned()));
    assert!(past[1].1.contains("broke off"), "{past:?}");
    assert_eq!(kinds(&sent).last(), Some(&"response.create"));

    // What is still being played is of a session that is gone: it can be silenced, not truncated.
    script.model(&speech_started());
    let actions = script.take();
    assert!(matches!(&actions[0], Action::ToCaller(text) if text.contains("clear")), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::ToModel(text) if text.contains("truncate"))));
}

#[test]
fn a_tool_that_outlives_its_session_is_told_in_words() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.model(&json!({"type": "response.output_item.done", "item": {"id": "i1", "type": "function_call",
        "status": "completed", "call_id": "c1", "name": "get_slots", "arguments": "{}"}}));
    script.model(&done("r1", "completed"));
    script.input(Input::ModelGone);
    script.take();
    script.session();
    let sent = script.sent_to_model();
    assert!(told(&sent)[0].1.contains("get_slots"), "{sent:?}");
    assert_eq!(kinds(&sent).last(), Some(&"conversation.item.create"), "the answer waits for the result");
    script.input(Input::ToolDone { call_id: "c1".into(), output: "nine".into(), command: None });
    let sent = script.sent_to_model();
    assert_eq!(kinds(&sent), ["conversation.item.create", "response.create"]);
    assert!(told(&sent)[0].1.ends_with("nine"), "{sent:?}");
    // The one after that is told the whole.
    script.input(Input::ModelGone);
    script.take();
    script.session();
    assert!(told(&script.sent_to_model())[0].1.ends_with("nine"));
}

#[test]
fn a_call_that_loses_session_after_session_goes_elsewhere() {
    let mut script = Script::talking();
    for _ in 0..3 {
        script.input(Input::ModelGone);
        assert_eq!(script.take().last(), Some(&Action::OpenSession));
        script.session();
    }
    script.input(Input::ModelGone);
    assert_eq!(script.take().last(), Some(&Action::End(EndReason::ModelUnavailable(Unavailable::Failing))));
}

#[test]
fn before_its_hour_is_over_a_call_moves_to_another_session_at_a_quiet_moment() {
    let mut script = after_one_turn();
    script.now = HOUR - 300_000;
    assert_eq!(script.call.deadline(), Some(script.now));
    script.input(Input::Tick);
    assert_eq!(script.take(), [Action::OpenSession]);
    script.model(&speech_started());
    script.session();
    assert!(script.take().is_empty(), "the caller speaks");
    script.model(&committed("u2"));
    script.model(&transcribed("u2", "And on Sunday?"));
    script.model(&created("r2"));
    script.agent_speaks("r2", "a2", 100);
    script.model(&agent_said("a2", "Never."));
    script.model(&done("r2", "completed"));
    let marks = mark_names(&script.sent_to_caller());
    script.now += 150;
    script.caller(&mark(&marks[0]));
    let actions = script.take();
    assert!(actions.contains(&Action::TakeSession), "{actions:?}");
    script.out = actions;
    let past = told(&script.sent_to_model());
    let texts: Vec<_> = past.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts[..4], ["When are you open?", "At nine.", "And on Sunday?", "Never."]);
    assert_eq!(script.call.deadline(), Some(script.now + HOUR - 150 - 300_000));
}

#[test]
fn a_call_that_is_never_quiet_moves_at_the_last_moment() {
    let mut script = Script::talking();
    script.now = HOUR - 300_000;
    script.input(Input::Tick);
    script.model(&speech_started());
    script.session();
    script.take();
    assert_eq!(script.call.next_session.deadline(), Some(HOUR - 10_000));
    script.caller(&media(9));
    script.now = HOUR - 10_000;
    script.input(Input::Tick);
    let sent = script.sent_to_model();
    assert_eq!(sent.last().unwrap()["audio"], STANDARD.encode([9; 160]), "what the caller says is heard again");
}
