//! The server's ears: the input buffer and the turn detection on it, in the time of the audio itself.
//!
//! Real voice activity detection is a small neural network that gives each moment a probability of speech.
//! Here the probability is a function of energy, which is enough to react to real speech and to ignore line
//! noise. All times count the audio appended in the session, never the clock.

use super::audio::{samples_in, whole_ms};
use super::config::TurnDetection;
use crate::speech::energy_dbfs;

/// Audio is judged in frames of 20 ms.
const FRAME: usize = 160;
/// So many loud frames on end are speech, fewer are a click.
const SPEECH_FRAMES: usize = 3;
/// Semantic detection asks after so much silence whether the sentence is complete.
const SEMANTIC_PAUSE_MS: u64 = 400;
/// Semantic detection has no settings of its own for these; the defaults of server VAD.
const SEMANTIC_THRESHOLD: f64 = 0.5;
const SEMANTIC_PREFIX_MS: u64 = 300;

/// What the listener found in the audio.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    Started { audio_start_ms: u64 },
    Stopped { audio_end_ms: u64, audio: Vec<i16> },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Quiet { loud_frames: usize },
    Speech { loud_until: usize },
}

/// The input audio buffer. Positions count samples since the session began.
#[derive(Debug)]
pub(super) struct Listener {
    buffer: Vec<i16>,
    /// Position of the first sample in the buffer.
    start: usize,
    /// Position up to which frames are judged.
    judged: usize,
    state: State,
}

impl Listener {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, judged: 0, state: State::Quiet { loud_frames: 0 } }
    }

    /// How much audio the session has had.
    pub(super) fn heard_ms(&self) -> u64 {
        whole_ms(self.end())
    }

    /// How much of it waits for a commit.
    pub(super) fn buffered_samples(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_in_speech(&self) -> bool {
        matches!(self.state, State::Speech { .. })
    }

    /// Takes the buffer for a commit.
    pub(super) fn take(&mut self) -> Vec<i16> {
        let end = self.end();
        let audio = std::mem::take(&mut self.buffer);
        self.start = end;
        self.reset();
        audio
    }

    /// Forgets any speech under way, as when the kind of turn detection changes.
    pub(super) fn reset(&mut self) {
        self.judged = self.end();
        self.state = State::Quiet { loud_frames: 0 };
    }

    /// Appends audio. `is_complete` judges for semantic detection whether an utterance is a whole one.
    pub(super) fn append(
        &mut self,
        samples: &[i16],
        detection: TurnDetection,
        is_complete: impl Fn(&[i16]) -> bool,
    ) -> Vec<Heard> {
        self.buffer.extend_from_slice(samples);
        let mut heard = Vec::new();
        while self.end() - self.judged >= FRAME {
            let frame = &self.buffer[self.judged - self.start..][..FRAME];
            let probability = speech_probability(frame);
            self.judged += FRAME;
            match detection {
                TurnDetection::Manual => {}
                TurnDetection::Server { threshold, prefix_ms, silence_ms } => {
                    let is_loud = probability >= threshold;
                    heard.extend(self.advance(is_loud, prefix_ms, |_, silent_ms| silent_ms >= silence_ms));
                }
                TurnDetection::Semantic { longest_wait_ms } => {
                    let is_loud = probability >= SEMANTIC_THRESHOLD;
                    heard.extend(self.advance(is_loud, SEMANTIC_PREFIX_MS, |audio, silent_ms| {
                        silent_ms >= longest_wait_ms || (silent_ms == SEMANTIC_PAUSE_MS && is_complete(audio))
                    }));
                }
            }
        }
        heard
    }

    /// One frame further. `is_over` is asked in silence after speech, with the utterance and the silence.
    fn advance(&mut self, is_loud: bool, prefix_ms: u64, is_over: impl Fn(&[i16], u64) -> bool) -> Option<Heard> {
        match self.state {
            State::Quiet { loud_frames } if is_loud && loud_frames + 1 >= SPEECH_FRAMES => {
                let began = self.judged - SPEECH_FRAMES * FRAME;
                self.drop_until(began.saturating_sub(samples_in(prefix_ms)));
                self.state = State::Speech { loud_until: self.judged };
                Some(Heard::Started { audio_start_ms: whole_ms(self.start) })
            }
            State::Quiet { loud_frames } => {
                let loud_frames = if is_loud { loud_frames + 1 } else { 0 };
                self.state = State::Quiet { loud_frames };
                self.drop_until(self.judged.saturating_sub(samples_in(prefix_ms) + SPEECH_FRAMES * FRAME));
                None
            }
            State::Speech { .. } if is_loud => {
                self.state = State::Speech { loud_until: self.judged };
                None
            }
            State::Speech { loud_until } => {
                let utterance = &self.buffer[..self.judged - self.start];
                if !is_over(utterance, whole_ms(self.judged - loud_until)) {
                    return None;
                }
                let audio = utterance.to_vec();
                self.drop_until(self.judged);
                self.state = State::Quiet { loud_frames: 0 };
                Some(Heard::Stopped { audio_end_ms: whole_ms(self.judged), audio })
            }
        }
    }

    fn end(&self) -> usize {
        self.start + self.buffer.len()
    }

    fn drop_until(&mut self, position: usize) {
        let count = position.saturating_sub(self.start).min(self.buffer.len());
        self.buffer.drain(..count);
        self.start += count;
    }
}

/// 0 at -60 dB and below, 1 at -20 dB and above: a telephone's line noise is near -55 dB, speech near -25 dB,
/// and the default threshold of 0.5 falls on -40 dB.
fn speech_probability(frame: &[i16]) -> f64 {
    ((energy_dbfs(frame) + 60.0) / 40.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAD: TurnDetection = TurnDetection::Server { threshold: 0.5, prefix_ms: 300, silence_ms: 500 };

    fn tone(ms: u64, level: i16) -> Vec<i16> {
        (0..samples_in(ms)).map(|n| if n % 16 < 8 { level } else { -level }).collect()
    }

    fn listen(detection: TurnDetection, parts: &[(u64, i16)]) -> Vec<Heard> {
        let mut listener = Listener::new();
        let audio: Vec<i16> = parts.iter().flat_map(|&(ms, level)| tone(ms, level)).collect();
        // 13 ms at a time: frames need not be aligned to appends.
        audio.chunks(104).flat_map(|part| listener.append(part, detection, |_| false)).collect()
    }

    fn times(heard: &[Heard]) -> Vec<u64> {
        heard
            .iter()
            .map(|event| match event {
                Heard::Started { audio_start_ms } => *audio_start_ms,
                Heard::Stopped { audio_end_ms, .. } => *audio_end_ms,
            })
            .collect()
    }

    #[test]
    fn speech_has_its_padding_before_and_its_silence_after() {
        let heard = listen(VAD, &[(1000, 0), (600, 3000), (900, 0)]);
        assert_eq!(times(&heard), [700, 2100]);
        let Heard::Stopped { audio, .. } = &heard[1] else { panic!("speech must stop") };
        assert_eq!(whole_ms(audio.len()), 1400);
    }

    #[test]
    fn padding_does_not_reach_back_before_the_session_or_the_turn_before() {
        assert_eq!(times(&listen(VAD, &[(100, 0), (600, 3000), (900, 0)])), [0, 1200]);
        let long_padding = TurnDetection::Server { threshold: 0.5, prefix_ms: 2000, silence_ms: 500 };
        let heard = listen(long_padding, &[(600, 3000), (600, 0), (600, 3000), (600, 0)]);
        assert_eq!(times(&heard), [0, 1100, 1100, 2300]);
    }

    #[test]
    fn clicks_pauses_and_noise_are_not_turns() {
        assert_eq!(listen(VAD, &[(500, 0), (40, 9000), (1000, 0)]), []);
        assert_eq!(listen(VAD, &[(3000, 100)]), [], "-50 dB is line noise");
        let heard = listen(VAD, &[(400, 3000), (400, 0), (400, 3000), (600, 0)]);
        assert_eq!(heard.len(), 2, "a pause shorter than silence_duration_ms does not end a turn");
    }

    #[test]
    fn the_threshold_decides_how_loud_speech_must_be() {
        let strict = TurnDetection::Server { threshold: 0.9, prefix_ms: 300, silence_ms: 500 };
        let parts = [(600, 1000), (600, 0)];
        assert_eq!((listen(VAD, &parts).len(), listen(strict, &parts).len()), (2, 0));
    }

    #[test]
    fn semantic_detection_waits_longer_for_an_unfinished_sentence() {
        let semantic = TurnDetection::Semantic { longest_wait_ms: 2000 };
        assert_eq!(times(&listen(semantic, &[(600, 3000), (2500, 0)])), [0, 2600]);
        let mut listener = Listener::new();
        let audio = [tone(600, 3000), tone(2500, 0)].concat();
        assert_eq!(times(&listener.append(&audio, semantic, |_| true)), [0, 1000]);
    }
}
