//! Departure to another process: at a quiet moment if there is one.

use super::*;

const BY: Millis = 9_000;

fn told_to_leave(mut script: Script) -> Script {
    script.input(Input::Leave { by: BY });
    script
}

fn at(script: &mut Script, now: Millis) -> Vec<Action> {
    script.now = now;
    script.input(Input::Tick);
    script.take()
}

/// The agent has said a second's worth, of which nothing is heard yet; gives the last mark.
fn speaking(script: &mut Script) -> String {
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 1000);
    script.model(&done("r1", "completed"));
    mark_names(&script.sent_to_caller()).pop().expect("audio is marked")
}

#[test]
fn a_call_in_which_nobody_speaks_leaves_at_once() {
    let mut script = told_to_leave(Script::talking());
    assert_eq!(script.take(), [Action::End(EndReason::HandedOver)]);
}

#[test]
fn what_the_agent_says_is_heard_to_its_end() {
    let mut script = Script::talking();
    let last = speaking(&mut script);
    let mut script = told_to_leave(script);
    assert_eq!((script.take(), script.soon()), (vec![], Some(BY)));
    script.now = 1_000;
    script.caller(&mark(&last));
    assert_eq!(script.take().last(), Some(&Action::End(EndReason::HandedOver)));
}

#[test]
fn a_caller_who_speaks_is_heard_and_answered_first() {
    let mut script = Script::talking();
    script.model(&speech_started());
    script.take();
    let mut script = told_to_leave(script);
    script.model(&committed("u1"));
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 100);
    script.model(&done("r1", "completed"));
    let sent = script.take();
    assert!(!sent.iter().any(|action| matches!(action, Action::End(_))), "{sent:?}");
    assert_eq!(at(&mut script, BY - 1), []);
}

#[test]
fn a_key_that_may_not_be_the_last_is_waited_for() {
    let keypad = Some(Keypad { timeout_ms: None, delimiters: "#".into() });
    let mut script = Script::with(|setup| setup.keypad = keypad);
    script.session();
    script.take();
    script.caller(&json!({"event": "dtmf", "dtmf": {"digit": "1"}}));
    let mut script = told_to_leave(script);
    assert_eq!(script.take(), []);
}

#[test]
fn there_is_no_time_beyond_the_limit() {
    let mut script = Script::talking();
    speaking(&mut script);
    let mut script = told_to_leave(script);
    assert_eq!(at(&mut script, BY).last(), Some(&Action::End(EndReason::HandedOver)));
}

#[test]
fn a_call_on_its_way_out_leaves_as_it_meant_to() {
    let mut script = Script::talking();
    speaking(&mut script);
    script.call.leave(script.now, EndReason::AgentHungUp, None, None, &mut script.out);
    let mut script = told_to_leave(script);
    assert_eq!(script.soon(), Some(BY));
    assert_eq!(at(&mut script, BY).last(), Some(&Action::End(EndReason::AgentHungUp)));
}

#[test]
fn a_call_without_a_session_has_nothing_to_wait_for() {
    let mut script = told_to_leave(Script::opening(Some("Good morning.")));
    assert_eq!(script.take(), [Action::End(EndReason::HandedOver)]);
}
