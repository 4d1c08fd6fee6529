//! While there is no session, the line is not silent for long.

use super::*;
use crate::bridge::call::ringing::is_tone;

fn tones(script: &mut Script) -> usize {
    let sent = script.sent_to_caller();
    assert!(sent.iter().all(is_tone), "{sent:?}");
    sent.len()
}

/// Goes on to what is due next.
fn next(script: &mut Script) -> Millis {
    script.now = script.call.deadline().expect("something is due");
    script.input(Input::Tick);
    script.now
}

#[test]
fn a_call_that_waits_for_its_first_session_rings() {
    let mut script = Script::opening(Some("Good morning."));
    script.caller(&media(1));
    assert_eq!((next(&mut script), tones(&mut script)), (1_000, 1));
    assert_eq!((next(&mut script), tones(&mut script)), (3_500, 1));
    script.now = 3_900;
    script.session();
    let actions = script.take();
    assert!(matches!(&actions[0], Action::ToCaller(text) if text.contains("clear")), "it is cut short: {actions:?}");
    assert_eq!(actions[1], Action::TakeSession);
    assert_eq!(script.call.ringing.deadline(), None);
}

#[test]
fn nothing_is_cut_short_that_is_over() {
    let mut script = Script::opening(None);
    next(&mut script);
    script.take();
    script.now = 2_100;
    script.session();
    assert_eq!(script.take(), [Action::TakeSession]);
}

#[test]
fn a_session_that_is_there_in_time_is_not_announced() {
    let mut script = Script::opening(None);
    script.now = 999;
    script.session();
    assert_eq!(script.take(), [Action::TakeSession]);
    assert_eq!(script.soon(), None);
}

/// The agent's words are still being played when the session is lost.
#[test]
fn what_the_agent_said_is_heard_before_it_rings() {
    let mut script = Script::talking();
    script.model(&created("r1"));
    script.agent_speaks("r1", "a", 1_000);
    script.model(&done("r1", "completed"));
    let last = mark_names(&script.sent_to_caller()).pop().expect("audio is marked");
    script.input(Input::ModelGone);
    assert_eq!(script.take().last(), Some(&Action::OpenSession));
    assert_eq!(script.soon(), None);
    script.now = 1_000;
    script.caller(&mark(&last));
    script.take();
    assert_eq!((next(&mut script), tones(&mut script)), (2_000, 1));
}
