//! The audio formats of the Realtime API, to and from what the simulator hears: 16-bit samples at 8 kHz.

use serde_json::Value;

use crate::speech::{SAMPLES_PER_MS, g711};

/// A format of the session, input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `audio/pcm`: 16-bit little-endian at 24 kHz, 48 bytes a millisecond.
    Pcm24k,
    /// `audio/pcmu`: G.711 mu-law at 8 kHz, 8 bytes a millisecond.
    Mulaw,
    /// `audio/pcma`: G.711 A-law at 8 kHz, 8 bytes a millisecond.
    Alaw,
}

/// Bytes of 24 kHz PCM that make one sample at 8 kHz: three samples of two bytes.
const PCM_GROUP: usize = 6;

impl Format {
    pub(super) fn from_json(format: &Value) -> Self {
        match format["type"].as_str() {
            Some("audio/pcmu") => Self::Mulaw,
            Some("audio/pcma") => Self::Alaw,
            _ => Self::Pcm24k,
        }
    }

    /// Encodes 8 kHz samples.
    pub(super) fn encode(self, samples: &[i16]) -> Vec<u8> {
        match self {
            Self::Mulaw => g711::pcm_to_mulaw(samples),
            Self::Alaw => samples.iter().map(|&sample| g711::alaw_encode(sample)).collect(),
            // Each sample three times: a crude filter, good enough for ears that only measure.
            Self::Pcm24k => samples.iter().flat_map(|sample| [sample.to_le_bytes(); 3]).flatten().collect(),
        }
    }
}

/// Decodes a stream of audio; what does not make a whole sample waits for the next chunk.
#[derive(Debug)]
pub(super) struct Decoder {
    format: Format,
    rest: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(format: Format) -> Self {
        Self { format, rest: Vec::new() }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// The samples, at 8 kHz, that this audio completes.
    pub(super) fn decode(&mut self, audio: &[u8]) -> Vec<i16> {
        match self.format {
            Format::Mulaw => g711::mulaw_to_pcm(audio),
            Format::Alaw => audio.iter().map(|&byte| g711::alaw_decode(byte)).collect(),
            Format::Pcm24k => {
                self.rest.extend_from_slice(audio);
                let whole = self.rest.len() - self.rest.len() % PCM_GROUP;
                let samples = self.rest[..whole].chunks_exact(PCM_GROUP).map(mean_of_three).collect();
                self.rest.drain(..whole);
                samples
            }
        }
    }
}

fn mean_of_three(group: &[u8]) -> i16 {
    let sum: i32 = group.chunks_exact(2).map(|pair| i32::from(i16::from_le_bytes([pair[0], pair[1]]))).sum();
    i16::try_from(sum / 3).expect("a mean lies between its numbers")
}

/// Milliseconds of audio in so many samples at 8 kHz, begun ones not counted.
pub(super) fn whole_ms(samples: usize) -> u64 {
    (samples / SAMPLES_PER_MS) as u64
}

/// Samples at 8 kHz in so many milliseconds.
pub(super) fn samples_in(ms: u64) -> usize {
    usize::try_from(ms).unwrap_or(usize::MAX).saturating_mul(SAMPLES_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_gives_back_what_went_in() {
        let samples: Vec<i16> = (-40..40).map(|n| g711::mulaw_decode(g711::mulaw_encode(n * 700))).collect();
        for (format, bytes_per_sample) in [(Format::Mulaw, 1), (Format::Alaw, 1), (Format::Pcm24k, 6)] {
            let audio = format.encode(&samples);
            assert_eq!(audio.len(), samples.len() * bytes_per_sample);
            let heard = Decoder::new(format).decode(&audio);
            for (before, after) in samples.iter().zip(&heard) {
                // G.711 keeps 13 bits or fewer: 1/32 of the value is its coarsest step.
                assert!(before.abs_diff(*after) <= before.unsigned_abs() / 32 + 16, "{format:?}");
            }
        }
    }

    #[test]
    fn pcm_may_be_cut_anywhere() {
        let audio = Format::Pcm24k.encode(&[100, -200, 300]);
        let mut decoder = Decoder::new(Format::Pcm24k);
        let heard: Vec<i16> = audio.chunks(5).flat_map(|chunk| decoder.decode(chunk)).collect();
        assert_eq!(heard, [100, -200, 300]);
    }
}
