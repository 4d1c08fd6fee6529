//! The head of a WAV file of mu-law in stereo: tag 7 in the registry of formats, 8 kHz, 8 bits.
//!
//! Source: "Multimedia Programming Interface and Data Specifications 1.0" of IBM and Microsoft, and RFC 2361 for the
//! tag. Formats other than plain samples have a `fact` chunk with the number of samples a channel.

/// Bytes before the samples.
pub(super) const HEAD_BYTES: u64 = 58;
const RATE: u32 = 8_000;
const CHANNELS: u16 = 2;

/// The head of a file with so many samples in each channel. A file ends at 4 GiB: 74 hours.
pub(super) fn head(samples: u64) -> Vec<u8> {
    let samples = u32::try_from(samples).unwrap_or(u32::MAX);
    let data = samples.saturating_mul(u32::from(CHANNELS));
    let mut head = Vec::with_capacity(64);
    head.extend(b"RIFF");
    head.extend((data.saturating_add(50)).to_le_bytes());
    head.extend(b"WAVEfmt ");
    head.extend(18_u32.to_le_bytes());
    head.extend(7_u16.to_le_bytes());
    head.extend(CHANNELS.to_le_bytes());
    head.extend(RATE.to_le_bytes());
    head.extend((RATE * u32::from(CHANNELS)).to_le_bytes());
    head.extend(CHANNELS.to_le_bytes());
    head.extend(8_u16.to_le_bytes());
    head.extend(0_u16.to_le_bytes());
    head.extend(b"fact");
    head.extend(4_u32.to_le_bytes());
    head.extend(samples.to_le_bytes());
    head.extend(b"data");
    head.extend(data.to_le_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_as_long_as_it_says() {
        let head = head(8000);
        assert_eq!(head.len() as u64, HEAD_BYTES);
        assert_eq!(u32::from_le_bytes(head[4..8].try_into().unwrap()), 16_000 + 58 - 8);
        assert_eq!(u32::from_le_bytes(head[54..58].try_into().unwrap()), 16_000);
    }
}
