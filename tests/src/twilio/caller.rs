//! The person who calls: a script, advanced one 20 ms frame at a time by what they hear.

use std::collections::VecDeque;

use super::line::{FRAME, FRAME_MS, Frame};
use super::sound::SILENCE;

/// How long a caller waits for something to happen before hanging up, if the script sets nothing else.
const GIVE_UP_MS: u64 = 30_000;

/// How long the agent must have been silent to count as quiet: longer than a pause between sentences.
const QUIET_MS: u64 = 800;

/// A caller's script. Steps run one after the other from the moment the call is answered; after the
/// last one the caller stays on the line in silence (and does what the call's handle tells them).
///
/// "Heard" and "quiet" are about audible sound from our side: streamed audio, `<Say>`, ringing.
#[derive(Clone, Debug)]
pub struct Caller {
    steps: VecDeque<Step>,
    give_up_ms: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Say(Vec<u8>),
    Wait(u64),
    Mute(u64),
    Heard(u64),
    Quiet(u64),
    Interrupt { after_ms: u64, audio: Vec<u8> },
    Dtmf(String),
    HangUp,
}

impl Default for Caller {
    fn default() -> Self {
        Self { steps: VecDeque::new(), give_up_ms: GIVE_UP_MS }
    }
}

impl Caller {
    /// A caller who says nothing and stays.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says this (mu-law, 8 kHz).
    #[must_use]
    pub fn say(self, mulaw: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Say(mulaw.into()))
    }

    /// Does nothing for so long.
    #[must_use]
    pub fn wait_ms(self, ms: u64) -> Self {
        self.then(Step::Wait(ms))
    }

    /// Sends no audio frames at all for so long, as a muted or lossy line does: stream timestamps jump.
    #[must_use]
    pub fn mute_ms(self, ms: u64) -> Self {
        self.then(Step::Mute(ms))
    }

    /// Waits until so much audible sound has been heard since this step began.
    #[must_use]
    pub fn wait_until_heard_ms(self, ms: u64) -> Self {
        self.then(Step::Heard(ms))
    }

    /// Waits until the agent has spoken since the caller's own last words (or since the answer), and
    /// has then been quiet for 800 ms.
    #[must_use]
    pub fn wait_until_agent_quiet(self) -> Self {
        self.wait_until_agent_quiet_for(QUIET_MS)
    }

    /// As [`Self::wait_until_agent_quiet`] with another length of silence.
    #[must_use]
    pub fn wait_until_agent_quiet_for(self, ms: u64) -> Self {
        self.then(Step::Quiet(ms))
    }

    /// Waits until the agent speaks, and starts saying this `after_ms` later, whatever the agent does.
    #[must_use]
    pub fn interrupt(self, after_ms: u64, mulaw: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Interrupt { after_ms, audio: mulaw.into() })
    }

    /// Presses keys (`0-9 * # A-D`).
    #[must_use]
    pub fn dtmf(self, digits: &str) -> Self {
        self.then(Step::Dtmf(digits.to_owned()))
    }

    /// Hangs up.
    #[must_use]
    pub fn hang_up(self) -> Self {
        self.then(Step::HangUp)
    }

    /// How long any one waiting step may take before the caller gives up and hangs up (default 30 s).
    #[must_use]
    pub fn give_up_after_ms(mut self, ms: u64) -> Self {
        self.give_up_ms = ms;
        self
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }

    /// Appends another script's steps: how a live call's handle speaks.
    pub(crate) fn extend(&mut self, more: Self) {
        self.steps.extend(more.steps);
    }
}

/// What the caller does in one frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Does {
    /// Their 20 ms of audio; `None` if the line sends nothing.
    pub(crate) frame: Option<Frame>,
    pub(crate) speaking: bool,
    pub(crate) digits: String,
    pub(crate) leaves: Option<Leaves>,
}

/// Why the caller puts the receiver down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    ByScript,
    GaveUpWaiting,
}

/// A script in progress.
#[derive(Debug)]
pub(crate) struct CallerState {
    script: Caller,
    /// Progress of the first step of the script: bytes spoken, time in it, sound heard in it.
    spoken: usize,
    in_step_ms: u64,
    heard_ms: u64,
    /// Since the caller's last words: has the agent spoken, how long ago did it begin, how long is it quiet.
    agent_spoke: bool,
    since_agent_began_ms: u64,
    agent_quiet_ms: u64,
}

impl CallerState {
    pub(crate) fn new(script: Caller) -> Self {
        Self {
            script,
            spoken: 0,
            in_step_ms: 0,
            heard_ms: 0,
            agent_spoke: false,
            since_agent_began_ms: 0,
            agent_quiet_ms: 0,
        }
    }

    pub(crate) fn extend(&mut self, more: Caller) {
        self.script.extend(more);
    }

    /// The next 20 ms, during which the agent is (or is not) audible.
    pub(crate) fn next(&mut self, agent_audible: bool) -> Does {
        self.hear(agent_audible);
        let mut does = Does { frame: Some([SILENCE; FRAME]), speaking: false, digits: String::new(), leaves: None };
        while let Some(step) = self.script.steps.front() {
            let done = match step {
                Step::Wait(ms) => self.in_step_ms >= *ms,
                Step::Heard(ms) => self.heard_ms >= *ms,
                Step::Quiet(ms) => self.agent_spoke && self.agent_quiet_ms >= *ms,
                Step::Mute(ms) => {
                    if self.in_step_ms < *ms {
                        does.frame = None;
                        break;
                    }
                    true
                }
                Step::Dtmf(digits) => {
                    does.digits.push_str(digits);
                    true
                }
                Step::HangUp => {
                    does.leaves = Some(Leaves::ByScript);
                    break;
                }
                Step::Interrupt { after_ms, .. } if !self.agent_spoke || self.since_agent_began_ms < *after_ms => false,
                Step::Say(audio) | Step::Interrupt { audio, .. } => {
                    if let Some(frame) = frame_at(audio, self.spoken) {
                        does.frame = Some(frame);
                        does.speaking = true;
                        self.spoken += FRAME;
                        // Speaking is not waiting: the time in this step counts for no limit.
                        return does;
                    }
                    self.agent_spoke = agent_audible;
                    self.since_agent_began_ms = 0;
                    true
                }
            };
            if !done {
                let waits_for_agent = !matches!(step, Step::Wait(_) | Step::Mute(_));
                if waits_for_agent && self.in_step_ms >= self.script.give_up_ms {
                    does.leaves = Some(Leaves::GaveUpWaiting);
                }
                break;
            }
            self.script.steps.pop_front();
            (self.spoken, self.in_step_ms, self.heard_ms) = (0, 0, 0);
        }
        self.in_step_ms += FRAME_MS;
        does
    }

    fn hear(&mut self, agent_audible: bool) {
        if self.agent_spoke {
            self.since_agent_began_ms += FRAME_MS;
        }
        if agent_audible {
            self.agent_spoke = true;
            self.agent_quiet_ms = 0;
            self.heard_ms += FRAME_MS;
        } else {
            self.agent_quiet_ms += FRAME_MS;
        }
    }
}

fn frame_at(audio: &[u8], position: usize) -> Option<Frame> {
    let rest = audio.get(position..).filter(|rest| !rest.is_empty())?;
    let mut frame = [SILENCE; FRAME];
    let length = rest.len().min(FRAME);
    frame[..length].copy_from_slice(&rest[..length]);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script against what the agent does in each frame; gives a letter per frame.
    fn play(script: Caller, agent: &[bool]) -> String {
        let mut state = CallerState::new(script);
        let mut letters = String::new();
        for audible in agent {
            let does = state.next(*audible);
            letters.push(match does {
                Does { leaves: Some(_), .. } => 'H',
                Does { speaking: true, .. } => 'S',
                Does { frame: None, .. } => '_',
                Does { ref digits, .. } if !digits.is_empty() => '#',
                Does { .. } => '.',
            });
        }
        letters
    }

    #[test]
    fn steps_follow_one_another() {
        let script = Caller::new().wait_ms(40).say([1; 200]).dtmf("1").wait_ms(20).mute_ms(20).hang_up();
        assert_eq!(play(script, &[false; 8]), "..SS#_HH");
    }

    #[test]
    fn an_interruption_starts_after_the_agent_has() {
        let script = Caller::new().interrupt(40, [1; 160]).wait_ms(1000);
        assert_eq!(play(script, &[false, false, true, true, true, true]), "....S.");
    }

    #[test]
    fn quiet_means_spoken_and_then_silent() {
        let script = Caller::new().say([1; 160]).wait_until_agent_quiet_for(40).say([1; 160]);
        assert_eq!(play(script.clone(), &[false; 6]), "S.....", "nobody has spoken yet");
        assert_eq!(play(script, &[false, false, true, false, false, false]), "S...S.");
    }

    #[test]
    fn heard_counts_audible_frames_only() {
        let script = Caller::new().wait_until_heard_ms(40).hang_up();
        assert_eq!(play(script, &[true, false, false, true]), "...H");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let script = Caller::new().wait_until_agent_quiet().give_up_after_ms(40);
        assert_eq!(play(script, &[false; 3]), "..H");
    }
}
