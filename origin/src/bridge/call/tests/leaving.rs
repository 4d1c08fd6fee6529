//! Leaving a stream: what is heard before, what nobody can stop, and what nobody waits for.

use super::*;
use crate::bridge::call::leaving::LAST_WORDS_LIMIT_MS;
use crate::store::tools::settings::Destination;

fn limited(rules: Rules) -> Script {
    let mut script = Script::talking();
    script.call.silence = Silence::new(&rules);
    script.call.rules = rules;
    script
}

/// The model says goodbye and calls a tool of ours in one response.
fn says_and_calls(script: &mut Script, command: Command) -> String {
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 1000);
    script.model(&json!({"type": "response.output_item.done", "item": {"id": "i", "type": "function_call",
        "status": "completed", "call_id": "c", "name": "f", "arguments": "{}"}}));
    script.input(Input::ToolDone { call_id: "c".into(), output: "done".into(), command: Some(command) });
    script.model(&done("r1", "completed"));
    last_mark(script)
}

/// The last mark of what the agent has said; the call goes on until it comes back.
fn last_mark(script: &mut Script) -> String {
    assert!(!script.out.iter().any(|action| matches!(action, Action::End(_))), "nothing is heard yet");
    mark_names(&script.sent_to_caller()).pop().expect("audio is marked")
}

#[test]
fn the_goodbye_is_heard_to_its_end_and_nobody_stops_it() {
    let mut script = Script::talking();
    let last = says_and_calls(&mut script, Command::HangUp { say: None });
    script.now = 500;
    script.model(&speech_started());
    script.caller(&media(1));
    assert_eq!(script.take(), [], "neither cleared nor heard");
    script.now = 1000;
    script.caller(&mark(&last));
    assert_eq!(script.take().last(), Some(&Action::End(EndReason::AgentHungUp)));
}

#[test]
fn a_goodbye_that_is_never_played_is_not_waited_for() {
    let mut script = Script::talking();
    says_and_calls(&mut script, Command::HangUp { say: None });
    assert_eq!(script.call.deadline(), Some(LAST_WORDS_LIMIT_MS));
    script.now = LAST_WORDS_LIMIT_MS;
    script.input(Input::Tick);
    assert_eq!(script.take().last(), Some(&Action::End(EndReason::AgentHungUp)));
}

#[test]
fn words_before_a_transfer_are_said_and_the_step_is_told() {
    let mut script = Script::talking();
    let destination: Destination = serde_json::from_value(json!({"type": "number", "number": "+15550100"})).unwrap();
    let command = Command::Transfer { destination: destination.clone(), say: Some("One moment.".into()) };
    script.model(&json!({"type": "response.output_item.done", "item": {"id": "i", "type": "function_call",
        "status": "completed", "call_id": "c", "name": "f", "arguments": "{}"}}));
    script.input(Input::ToolDone { call_id: "c".into(), output: "done".into(), command: Some(command) });
    let asked = script.sent_to_model();
    assert!(asked.last().unwrap()["response"]["instructions"].as_str().unwrap().ends_with("One moment."), "{asked:?}");
    script.model(&super::asked("r2", 1));
    script.agent_speaks("r2", "b", 200);
    script.model(&done("r2", "completed"));
    let last = last_mark(&mut script);
    script.caller(&mark(&last));
    let end = [Action::Step(Step::Transfer { destination }), Action::End(EndReason::Transferring)];
    assert_eq!(script.take(), end);
}

#[test]
fn the_longest_time_ends_with_words_and_a_cap() {
    let mut script = limited(Rules { ends_at: Some(60_000), farewell: Some("Bye.".into()), ..Rules::default() });
    script.now = 60_000;
    script.input(Input::Tick);
    assert!(script.sent_to_model()[0].to_string().contains("Bye."));
    script.now = 60_000 + LAST_WORDS_LIMIT_MS;
    script.input(Input::Tick);
    assert_eq!(script.take(), [Action::End(EndReason::MaxDuration)]);
}

#[test]
fn silence_is_counted_while_nobody_speaks() {
    let mut script = limited(Rules { silence_ms: Some(10_000), ..Rules::default() });
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 1000);
    script.model(&done("r1", "completed"));
    let last = last_mark(&mut script);
    assert_eq!(script.call.limits_deadline(), None, "the agent is being heard");
    script.now = 1000;
    script.caller(&mark(&last));
    assert_eq!(script.call.limits_deadline(), Some(11_000));
    script.now = 5000;
    script.model(&speech_started());
    assert_eq!(script.call.limits_deadline(), None, "the caller speaks");
    script.now = 6000;
    script.model(&json!({"type": "input_audio_buffer.speech_stopped", "item_id": "next"}));
    assert_eq!(script.call.limits_deadline(), Some(16_000));
}

#[test]
fn a_call_that_is_over_elsewhere_is_over() {
    let mut script = Script::talking();
    script.input(Input::CallOver);
    assert_eq!(script.take(), [Action::End(EndReason::CallOver)]);
}
