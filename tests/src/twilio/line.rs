//! The telephone line of one answered call: 20 ms at a time, what the caller says and what they hear.
//!
//! Pure: a clock outside calls [`Line::tick`] once for every frame, so both directions of the
//! recording have the same length and time base by construction.

use super::caller::{Caller, CallerState, Leaves};
use super::dead_air::{DeadAir, Heard};
use super::ledger::Playback;
use super::sound::{self, SILENCE};
use super::trace::What;

/// Bytes of a frame: 20 ms of mu-law at 8 kHz.
pub(crate) const FRAME: usize = 160;
/// Length of a frame.
pub(crate) const FRAME_MS: u64 = 20;
/// One frame of mu-law audio.
pub(crate) type Frame = [u8; FRAME];

/// Silence shorter than this does not end an utterance in the trace.
const HANGOVER_MS: u64 = 300;

/// What is on the air towards the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Air {
    /// Nothing: between verbs, while a webhook is awaited, while a stream connects.
    Nothing,
    /// A `<Pause>`.
    Pause,
    /// Something audible that the simulator does not voice: `<Say>`, ringing, the party of a `<Dial>`.
    Tone,
    /// The audio that our side streams.
    Stream,
}

/// Both sides of a call, from the moment it was answered.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// What the caller said: mu-law, 8 kHz.
    pub caller: Vec<u8>,
    /// What the caller heard, sample for sample beside `caller`: streamed audio as it was played; a
    /// tone in place of what Twilio itself would voice (`<Say>`, ringing, the party of a `<Dial>`).
    pub agent: Vec<u8>,
    /// When the recording begins on the call's clock, in microseconds: the moment of the answer.
    pub starts_at_us: u64,
}

/// What happened in one frame.
#[derive(Debug)]
pub(crate) struct Tick {
    /// When the frame begins on the call's clock.
    pub(crate) at_us: u64,
    /// The caller's audio; `None` if the line sends none.
    pub(crate) caller: Option<Frame>,
    /// Marks whose audio has been played.
    pub(crate) marks: Vec<String>,
    pub(crate) digits: String,
    pub(crate) leaves: Option<Leaves>,
    /// Who began and who stopped speaking.
    pub(crate) noted: Vec<What>,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) air: Air,
    pub(crate) playback: Playback,
    caller: CallerState,
    recording: Recording,
    dead_air: DeadAir,
    agent_voice: Voice,
    caller_voice: Voice,
    frames: u64,
}

impl Line {
    pub(crate) fn new(caller: Caller) -> Self {
        Self {
            air: Air::Nothing,
            playback: Playback::default(),
            caller: CallerState::new(caller),
            recording: Recording::default(),
            dead_air: DeadAir::default(),
            agent_voice: Voice::default(),
            caller_voice: Voice::default(),
            frames: 0,
        }
    }

    /// The call is answered: frames begin here.
    pub(crate) fn answer(&mut self, at_us: u64) {
        self.recording.starts_at_us = at_us;
    }

    /// When the next frame is due.
    pub(crate) fn next_frame_us(&self) -> u64 {
        self.recording.starts_at_us + self.frames * FRAME_MS * 1000
    }

    pub(crate) fn tick(&mut self) -> Tick {
        let at_us = self.next_frame_us();
        self.frames += 1;
        let (agent, marks) = match self.air {
            Air::Nothing | Air::Pause => ([SILENCE; FRAME], Vec::new()),
            Air::Tone => (sound::tone(), Vec::new()),
            Air::Stream => {
                let played = self.playback.play(at_us);
                (played.frame, played.marks)
            }
        };
        let agent_audible = sound::is_audible(&agent);
        let does = self.caller.next(agent_audible);
        self.recording.agent.extend_from_slice(&agent);
        self.recording.caller.extend_from_slice(&does.frame.unwrap_or([SILENCE; FRAME]));
        let heard = match (agent_audible, does.speaking, self.air) {
            (true, _, _) => Heard::Sound,
            (false, true, _) => Heard::OwnVoice,
            (false, false, Air::Pause) => Heard::AskedPause,
            (false, false, _) => Heard::Nothing,
        };
        self.dead_air.frame(at_us / 1000, heard);
        let mut noted = Vec::new();
        noted.extend(self.caller_voice.frame(does.speaking).map(|turn| match turn {
            Turn::Begins => What::CallerSpeaks,
            Turn::Ended { spoke_ms } => What::CallerQuiet { spoke_ms },
        }));
        let streamed = agent_audible && self.air == Air::Stream;
        noted.extend(self.agent_voice.frame(streamed).map(|turn| match turn {
            Turn::Begins => What::AgentSpeaks,
            Turn::Ended { spoke_ms } => What::AgentQuiet { spoke_ms },
        }));
        Tick { at_us, caller: does.frame, marks, digits: does.digits, leaves: does.leaves, noted }
    }

    pub(crate) fn direct(&mut self, more: Caller) {
        self.caller.extend(more);
    }

    pub(crate) fn recording(&self) -> &Recording {
        &self.recording
    }

    pub(crate) fn dead_air(&self) -> &DeadAir {
        &self.dead_air
    }
}

/// One party's turns at speaking.
#[derive(Debug, Default)]
struct Voice {
    spoke_ms: u64,
    silent_ms: u64,
}

enum Turn {
    Begins,
    Ended { spoke_ms: u64 },
}

impl Voice {
    fn frame(&mut self, audible: bool) -> Option<Turn> {
        if audible {
            let begins = self.spoke_ms == 0;
            // A short silence belongs to the utterance that goes on after it.
            self.spoke_ms += FRAME_MS + std::mem::take(&mut self.silent_ms);
            return begins.then_some(Turn::Begins);
        }
        if self.spoke_ms == 0 {
            return None;
        }
        self.silent_ms += FRAME_MS;
        if self.silent_ms < HANGOVER_MS {
            return None;
        }
        self.silent_ms = 0;
        Some(Turn::Ended { spoke_ms: std::mem::take(&mut self.spoke_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_recorded_on_one_time_base() {
        let mut line = Line::new(Caller::new().wait_ms(20).say([0x10; FRAME]));
        line.answer(1_000_000);
        line.air = Air::Stream;
        line.playback.media(vec![0x20; FRAME * 2], 1_000_000);
        let ticks: Vec<Tick> = (0..3).map(|_| line.tick()).collect();
        assert_eq!(ticks.iter().map(|tick| tick.at_us).collect::<Vec<_>>(), [1_000_000, 1_020_000, 1_040_000]);
        let recording = line.recording();
        assert_eq!(recording.caller, [[SILENCE; FRAME], [0x10; FRAME], [SILENCE; FRAME]].concat());
        assert_eq!(recording.agent, [[0x20; FRAME], [0x20; FRAME], [SILENCE; FRAME]].concat());
        assert_eq!(line.dead_air().longest_ms(), 20);
    }

    #[test]
    fn turns_are_noted_with_their_length() {
        let mut voice = Voice::default();
        let mut turns = Vec::new();
        for audible in [true, false, true].into_iter().chain([false; 20]) {
            turns.extend(voice.frame(audible).map(|turn| match turn {
                Turn::Begins => 0,
                Turn::Ended { spoke_ms } => spoke_ms,
            }));
        }
        assert_eq!(turns, [0, 60]);
    }
}
