//! What the caller hears while there is no session: a soft tone, as of a phone that rings at the other end. A line that is
//! silent for seconds is taken for dead.

use std::f64::consts::TAU;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Action, Call, Millis, Phase};
use crate::bridge::wire::Audio;

/// So much silence is taken for a pause.
const AFTER_MS: Millis = 1_000;
/// So long each tone is.
const TONE_MS: Millis = 1_000;
/// From the beginning of one to the beginning of the next.
const EVERY_MS: Millis = 2_500;

/// Both at once are the ringing tone of North America, which others know as well; in hertz.
const TONES: [f64; 2] = [440.0, 480.0];
/// Of each, on the scale of 16 bits: well below speech.
const AMPLITUDE: f64 = 420.0;
const SAMPLES_A_SECOND: u32 = 8_000;

/// One second of it in mu-law, as base64: whole waves, so that it begins and ends without a click.
static TONE: LazyLock<String> = LazyLock::new(|| {
    let sample = |index| {
        let at = f64::from(index) / f64::from(SAMPLES_A_SECOND);
        TONES.iter().map(|hertz| AMPLITUDE * (TAU * hertz * at).sin()).sum()
    };
    STANDARD.encode((0..SAMPLES_A_SECOND).map(|index| mulaw(sample(index))).collect::<Vec<u8>>())
});

/// ITU-T G.711.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sample has 16 bits, of which eight are left"
)]
fn mulaw(sample: f64) -> u8 {
    const BIAS: u16 = 132;
    let magnitude = sample.abs() as u16 + BIAS;
    let exponent = 8_u32.saturating_sub(magnitude.leading_zeros());
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    let sign = if sample < 0.0 { 0x80 } else { 0 };
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}

/// How far the waiting has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ringing {
    /// When the next tone is due; `None`: nobody waits.
    next: Option<Millis>,
    /// Until when a tone is heard.
    until: Millis,
}

impl Ringing {
    /// A call begins without a session.
    pub(super) const fn of_new_call(now: Millis) -> Self {
        Self { next: Some(now + AFTER_MS), until: 0 }
    }

    pub(super) fn deadline(self) -> Option<Millis> {
        self.next
    }
}

impl Call {
    /// Follows whether the caller waits in silence for a session.
    pub(super) fn ringing_follows(&mut self, now: Millis) {
        let waits = matches!(self.phase, Phase::Opening) && self.playback.is_idle() && self.leaving.is_none();
        match self.ringing.next {
            None if waits => self.ringing.next = Some(now + AFTER_MS),
            Some(_) if !waits => self.ringing.next = None,
            _ => {}
        }
    }

    pub(super) fn ringing_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.ringing.next.is_some_and(|at| now >= at) {
            self.ringing = Ringing { next: Some(now + EVERY_MS), until: now + TONE_MS };
            out.extend(Audio::new(&TONE).map(|tone| Action::ToCaller(self.stream.media(tone))));
        }
    }

    /// The session is there: what it says is not to wait for the tone.
    pub(super) fn stop_ringing(&mut self, now: Millis, out: &mut Vec<Action>) {
        if now < std::mem::take(&mut self.ringing).until && self.playback.is_idle() {
            out.push(Action::ToCaller(self.stream.clear()));
        }
    }
}

/// Whether a message to Twilio is the tone.
#[cfg(test)]
pub(super) fn is_tone(message: &serde_json::Value) -> bool {
    message["media"]["payload"] == TONE.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tone_is_soft_whole_and_begins_in_silence() {
        let tone = STANDARD.decode(TONE.as_str()).unwrap();
        assert_eq!((tone.len() as u64, tone[0]), (TONE_MS * 8, 0xff));
        // Inverted, the three bits after the sign are the loudness; speech has four and more.
        let loudest = tone.iter().map(|byte| (!byte >> 4) & 7).max();
        assert_eq!(loudest, Some(2));
    }

    #[test]
    fn samples_are_coded_as_the_standard_says() {
        for (sample, code) in [(0.0, 0xff), (8.0, 0xfe), (1_000.0, 0xce), (-1_000.0, 0x4e), (4_063.0, 0xaf)] {
            assert_eq!(mulaw(sample), code, "{sample}");
        }
    }
}
