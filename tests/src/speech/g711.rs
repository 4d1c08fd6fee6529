//! G.711: mu-law and A-law to 16-bit samples and back, by ITU-T G.711 (as in Sun's public `g711.c`).

const BIAS: i32 = 0x84;
const CLIP: i32 = 32_635;

/// One mu-law byte as a sample.
pub fn mulaw_decode(byte: u8) -> i16 {
    let byte = i32::from(!byte);
    let magnitude = (((byte & 0x0f) << 3) + BIAS) << ((byte & 0x70) >> 4);
    let sample = if byte & 0x80 == 0 { magnitude - BIAS } else { BIAS - magnitude };
    narrow(sample)
}

/// One sample as a mu-law byte.
pub fn mulaw_encode(sample: i16) -> u8 {
    let sample = i32::from(sample);
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = sample.abs().min(CLIP) + BIAS;
    // The bias makes bit 7 the lowest bit that can lead: 0 <= segment <= 7.
    let segment = magnitude.ilog2() - 7;
    let step = (magnitude >> (segment + 3)) & 0x0f;
    !byte(sign | (segment.cast_signed() << 4) | step)
}

/// One A-law byte as a sample.
pub fn alaw_decode(byte: u8) -> i16 {
    let byte = i32::from(byte ^ 0x55);
    let step = (byte & 0x0f) << 4;
    let magnitude = match (byte & 0x70) >> 4 {
        0 => step + 8,
        segment => (step + 0x108) << (segment - 1),
    };
    narrow(if byte & 0x80 == 0 { -magnitude } else { magnitude })
}

/// One sample as an A-law byte.
pub fn alaw_encode(sample: i16) -> u8 {
    let sample = i32::from(sample);
    let (sign, magnitude) = if sample < 0 { (0, !sample) } else { (0x80, sample) };
    let (segment, step) = if magnitude < 256 {
        (0, magnitude >> 4)
    } else {
        let segment = magnitude.ilog2() - 7;
        (segment.cast_signed(), (magnitude >> (segment + 3)) & 0x0f)
    };
    byte(sign | (segment << 4) | step) ^ 0x55
}

/// Mu-law audio as samples.
pub fn mulaw_to_pcm(audio: &[u8]) -> Vec<i16> {
    audio.iter().map(|&byte| mulaw_decode(byte)).collect()
}

/// Samples as mu-law audio.
pub fn pcm_to_mulaw(samples: &[i16]) -> Vec<u8> {
    samples.iter().map(|&sample| mulaw_encode(sample)).collect()
}

fn narrow(sample: i32) -> i16 {
    i16::try_from(sample).expect("G.711 covers less than 16 bits")
}

fn byte(code: i32) -> u8 {
    u8::try_from(code).expect("a G.711 code has 8 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in 0..=u8::MAX {
            // 0x7f is minus zero, which has no sample of its own.
            if code != 0x7f {
                assert_eq!(mulaw_encode(mulaw_decode(code)), code, "mu-law {code:#04x}");
            }
            assert_eq!(alaw_encode(alaw_decode(code)), code, "A-law {code:#04x}");
        }
    }

    #[test]
    fn known_codes() {
        // Table 2a/G.711: the largest, the smallest, and silence.
        assert_eq!(mulaw_decode(0x80), 32_124);
        assert_eq!(mulaw_decode(0x00), -32_124);
        assert_eq!(mulaw_decode(0xff), 0);
        assert_eq!(alaw_decode(0xd5), 8);
        assert_eq!(alaw_decode(0xaa), 32_256);
    }

    #[test]
    fn the_extremes_of_16_bits_are_clipped() {
        assert_eq!(mulaw_encode(i16::MIN), 0x00);
        assert_eq!(mulaw_encode(i16::MAX), 0x80);
        assert_eq!(alaw_encode(i16::MIN), 0x2a);
        assert_eq!(alaw_encode(i16::MAX), 0xaa);
    }
}
