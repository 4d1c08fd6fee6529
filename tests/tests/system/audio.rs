//! Audio whose every byte says who spoke it.
//!
//! A voice is noise from sixteen loud mu-law values that no other voice has, so that a recording can be taken apart
//! again, byte for byte.

use tests::speech::Clip;

pub(crate) const CALLER: u8 = 0;
pub(crate) const AGENT: u8 = 1;
pub(crate) const AGENT_LONG: u8 = 2;
pub(crate) const AGENT_NEXT: u8 = 3;
pub(crate) const AGENT_LAST: u8 = 4;

/// Noise of `ms`, from -28 to -15 dB of full scale: speech to a detector of energy.
pub(crate) fn voice(voice: u8, ms: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32.wrapping_add(u32::from(voice));
    (0..ms * 8)
        .map(|_| {
            // Xorshift, for bytes that do not repeat; quality is of no matter.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            byte(voice, state.to_le_bytes()[1])
        })
        .collect()
}

/// Sign and three bits of mantissa are free; the exponent and the other bit are the voice's.
fn byte(voice: u8, random: u8) -> u8 {
    let exponent = 3 + voice / 2;
    let mantissa = (random & 0x07) | ((voice % 2) << 3);
    !((random & 0x80) | (exponent << 4) | mantissa)
}

fn is_of(voice: u8, byte: u8) -> bool {
    let inverted = !byte;
    (inverted >> 4) & 7 == 3 + voice / 2 && (inverted >> 3) & 1 == voice % 2
}

/// What `voice` said in a recording, without anything around or between.
pub(crate) fn only(voice: u8, recording: &[u8]) -> Vec<u8> {
    recording.iter().copied().filter(|byte| is_of(voice, *byte)).collect()
}

/// Whether anybody is heard.
pub(crate) fn is_sound(recording: &[u8]) -> bool {
    // 0xFF and 0x7F are silence in mu-law.
    recording.iter().any(|byte| !matches!(byte, 0xff | 0x7f))
}

/// How long our side's soft tone is heard, in milliseconds: nobody's voice is as soft. It crosses zero now and then.
pub(crate) fn soft_ms(recording: &[u8]) -> usize {
    recording.iter().filter(|byte| matches!((!**byte >> 4) & 7, 1 | 2)).count() / 8
}

/// The same as words of the agent.
pub(crate) fn clip(of: u8, ms: usize, text: &str) -> Clip {
    Clip { name: format!("voice {of}"), text: text.to_owned(), mulaw: voice(of, ms) }
}

/// `count` words that differ.
pub(crate) fn words(count: usize) -> String {
    (0..count).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ")
}
