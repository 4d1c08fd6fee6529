//! The little that a telephone line must know of mu-law audio: is somebody audible, and a tone.

use super::line::{FRAME, Frame};

/// Mu-law silence.
pub(crate) const SILENCE: u8 = 0xFF;

/// Peak of a 16-bit sample above which a frame counts as sound: about -40 dBFS, above the noise of
/// a quantised quiet line and far below speech.
const AUDIBLE_PEAK: u16 = 330;

/// Whether a person would hear something in these mu-law bytes.
pub(crate) fn is_audible(mulaw: &[u8]) -> bool {
    mulaw.iter().any(|byte| magnitude(*byte) > AUDIBLE_PEAK)
}

/// Magnitude of one sample on the 16-bit scale (ITU-T G.711, bias 0x84).
fn magnitude(byte: u8) -> u16 {
    let bits = !byte;
    let exponent = (bits >> 4) & 0x07;
    let mantissa = u16::from(bits & 0x0F);
    (((mantissa << 3) + 0x84) << exponent) - 0x84
}

/// One frame of a 400 Hz square wave: what recordings hold for a `<Say>`, a ringing tone or the
/// other party of a `<Dial>`, none of which the simulator voices. 400 Hz divides the frame evenly,
/// so that frames join without a click.
pub(crate) fn tone() -> Frame {
    // 0x9F and 0x1F are the same loudness (about -18 dBFS) with opposite signs; 10 samples are half a wave.
    let mut frame = [0x9F; FRAME];
    for (index, sample) in frame.iter_mut().enumerate() {
        if (index / 10) % 2 == 1 {
            *sample = 0x1F;
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_not_audible_and_a_tone_is() {
        assert!(!is_audible(&[SILENCE, 0x7F, 0xFE, 0x7D]));
        assert!(is_audible(&tone()));
        assert_eq!(magnitude(0x00), 32_124);
    }
}
