//! WAV files: telephone recordings in, the two sides of a call out.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::g711;

const FORMAT_PCM: u16 = 1;
const FORMAT_MULAW: u16 = 7;

/// Samples a second of everything here.
pub const SAMPLE_RATE: u32 = 8_000;

/// Reads an 8 kHz mono WAV file, mu-law (format 7) or 16-bit PCM, as mu-law.
pub fn read_mulaw(path: impl AsRef<Path>) -> anyhow::Result<Vec<u8>> {
    let path = path.as_ref();
    let file = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_mulaw(&file).with_context(|| format!("{} cannot be used", path.display()))
}

/// The same from a file's bytes. `hound` reads PCM only, hence the few lines of RIFF.
pub fn parse_mulaw(file: &[u8]) -> anyhow::Result<Vec<u8>> {
    ensure!(file.get(..4) == Some(b"RIFF") && file.get(8..12) == Some(b"WAVE"), "not a WAV file");
    let mut format = None;
    let mut rest = &file[12..];
    while let Some((header, after)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        // A recorder that was cut off leaves a length beyond the end of the file: take what is there.
        let (body, next) = after.split_at(length.min(after.len()));
        match &header[..4] {
            b"fmt " => format = Some(Format::parse(body)?),
            b"data" => return format.context("the data comes before its format")?.to_mulaw(body),
            _ => {}
        }
        // Chunks are padded to an even length.
        rest = next.get(length % 2..).unwrap_or_default();
    }
    bail!("the file holds no audio")
}

struct Format {
    tag: u16,
    bits: u16,
}

impl Format {
    fn parse(body: &[u8]) -> anyhow::Result<Self> {
        ensure!(body.len() >= 16, "the format chunk is too short");
        let word = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
        let rate = u32::from_le_bytes([body[4], body[5], body[6], body[7]]);
        ensure!(word(2) == 1, "{} channels where one is needed", word(2));
        ensure!(rate == SAMPLE_RATE, "{rate} samples a second where {SAMPLE_RATE} are needed");
        Ok(Self { tag: word(0), bits: word(14) })
    }

    fn to_mulaw(&self, audio: &[u8]) -> anyhow::Result<Vec<u8>> {
        match (self.tag, self.bits) {
            (FORMAT_MULAW, 8) => Ok(audio.to_vec()),
            (FORMAT_PCM, 16) => Ok(audio
                .chunks_exact(2)
                .map(|pair| g711::mulaw_encode(i16::from_le_bytes([pair[0], pair[1]])))
                .collect()),
            (tag, bits) => bail!("format {tag} with {bits} bits is neither mu-law nor 16-bit PCM"),
        }
    }
}

/// Writes the two sides of a call as stereo 16-bit PCM: the caller on the left, the agent on the right.
/// The shorter side is filled with silence.
pub fn write_call(path: impl AsRef<Path>, caller: &[i16], agent: &[i16]) -> anyhow::Result<()> {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let path = path.as_ref();
    let mut file = hound::WavWriter::create(path, spec).with_context(|| format!("cannot write {}", path.display()))?;
    for at in 0..caller.len().max(agent.len()) {
        file.write_sample(caller.get(at).copied().unwrap_or(0))?;
        file.write_sample(agent.get(at).copied().unwrap_or(0))?;
    }
    Ok(file.finalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcm_file(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
        let mut file = std::io::Cursor::new(Vec::new());
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::new(&mut file, spec).expect("a header can be written");
        for &sample in samples {
            writer.write_sample(sample).expect("a sample can be written");
        }
        writer.finalize().expect("the file can be finished");
        file.into_inner()
    }

    #[test]
    fn pcm_becomes_mulaw() {
        let mulaw = parse_mulaw(&pcm_file(8_000, 1, &[0, 32_124, -32_124])).expect("readable");
        assert_eq!(mulaw, [0xff, 0x80, 0x00]);
    }

    #[test]
    fn what_is_not_a_telephone_recording_is_refused() {
        for (file, complaint) in [
            (b"ID3 something".to_vec(), "not a WAV file"),
            (pcm_file(44_100, 1, &[0]), "44100 samples a second"),
            (pcm_file(8_000, 2, &[0, 0]), "2 channels"),
        ] {
            let error = parse_mulaw(&file).expect_err("must be refused").to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_call_has_the_caller_left_and_the_agent_right() {
        let path = std::env::temp_dir().join(format!("tandem-call-{}.wav", uuid::Uuid::new_v4()));
        write_call(&path, &[1, 2, 3], &[-1]).expect("the file can be written");
        let mut file = hound::WavReader::open(&path).expect("the file can be read");
        assert_eq!((file.spec().channels, file.spec().sample_rate), (2, 8_000));
        let samples: Vec<i16> = file.samples().map(|sample| sample.expect("a sample")).collect();
        assert_eq!(samples, [1, -1, 2, 0, 3, 0]);
        std::fs::remove_file(&path).expect("the file can be removed");
    }
}
