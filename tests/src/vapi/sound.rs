//! Just enough G.711 mu-law: is anybody speaking, and a tone to speak with when no recording is given.

/// Bytes (samples) of mu-law in a millisecond.
pub(crate) const BYTES_PER_MS: usize = 8;

/// One sample, linear, out of ±32,124.
fn decode(byte: u8) -> i32 {
    let byte = !byte;
    let exponent = (byte >> 4) & 7;
    let magnitude = (((i32::from(byte & 0x0f) << 3) + 0x84) << exponent) - 0x84;
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The nearest mu-law byte to a linear sample.
fn encode(sample: i32) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = (sample.abs().min(32_635)) + 0x84;
    // The position of the highest set bit, from 7 (only the bias) to 14.
    let exponent = 31 - magnitude.leading_zeros() - 7;
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    let byte = sign | (exponent.cast_signed() << 4) | mantissa;
    !u8::try_from(byte & 0xff).expect("masked to one byte")
}

/// Mean level of a stretch of mu-law.
pub fn level(audio: &[u8]) -> i32 {
    let sum: i64 = audio.iter().map(|byte| i64::from(decode(*byte).abs())).sum();
    let count = i64::try_from(audio.len().max(1)).unwrap_or(i64::MAX);
    i32::try_from(sum / count).unwrap_or(i32::MAX)
}

/// A 400 Hz tone of `ms` milliseconds: clearly audible, and nothing that a speech detector takes for silence.
pub fn tone(ms: usize) -> Vec<u8> {
    // 8,000 samples a second / 400 Hz: one period is 20 samples.
    const PERIOD: usize = 20;
    (0..ms * BYTES_PER_MS)
        .map(|sample| {
            #[expect(clippy::cast_precision_loss)]
            let phase = (sample % PERIOD) as f64 / PERIOD as f64 * std::f64::consts::TAU;
            #[expect(clippy::cast_possible_truncation)]
            encode((phase.sin() * 8000.0) as i32)
        })
        .collect()
}

/// What changed in the caller's speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Someone began to speak.
    Started,
    /// Silence for long enough to be the end of a turn.
    Stopped,
}

/// Speech detection by level.
#[derive(Debug, Clone, Default)]
pub(crate) struct Detector {
    speaking: bool,
    loud: usize,
    quiet: usize,
}

impl Detector {
    /// Above the noise of a telephone line, below quiet speech.
    const LOUD: i32 = 400;
    /// Loud this long is speech and not a click.
    const START: usize = 60 * BYTES_PER_MS;
    /// Quiet this long is the end of a turn.
    const END: usize = 600 * BYTES_PER_MS;

    /// Takes the next stretch of the caller's audio.
    pub(crate) fn hear(&mut self, audio: &[u8]) -> Option<Speech> {
        if level(audio) >= Self::LOUD {
            self.loud += audio.len();
            self.quiet = 0;
        } else {
            self.quiet += audio.len();
            self.loud = 0;
        }
        if !self.speaking && self.loud >= Self::START {
            self.speaking = true;
            return Some(Speech::Started);
        }
        if self.quiet >= Self::END {
            return self.end();
        }
        None
    }

    /// The line has fallen silent without sending silence, as Twilio does when a caller mutes.
    pub(crate) fn end(&mut self) -> Option<Speech> {
        self.loud = 0;
        std::mem::take(&mut self.speaking).then_some(Speech::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_decoding_and_encoding() {
        for byte in 0..=255_u8 {
            // 0x7f and 0xff are both zero; the encoder knows only the positive one.
            let expected = if byte == 0x7f { 0xff } else { byte };
            assert_eq!(encode(decode(byte)), expected, "{byte:#x}");
        }
    }

    #[test]
    fn a_tone_is_speech_and_silence_ends_it() {
        let mut detector = Detector::default();
        let heard: Vec<_> = tone(200).chunks(160).filter_map(|frame| detector.hear(frame)).collect();
        assert_eq!(heard, [Speech::Started]);
        let silence = vec![0xff; 160];
        let heard: Vec<_> = (0..40).filter_map(|_| detector.hear(&silence)).collect();
        assert_eq!(heard, [Speech::Stopped]);
    }

    #[test]
    fn a_click_is_not_speech() {
        let mut detector = Detector::default();
        assert_eq!(detector.hear(&tone(20)), None);
        assert_eq!(detector.hear(&[0xff; 160]), None);
        assert_eq!(detector.end(), None);
    }
}
