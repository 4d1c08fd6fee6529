//! Recorded speech for simulated calls, and the few audio tools that tests need.
//!
//! The recordings are in `tests/speech/` (made by the script there): a clinic's receptionist (`agent-*`)
//! and somebody who calls (`caller-*`), each with a text file that holds what is said. Inside, audio is
//! 16-bit samples at 8 kHz; on a telephone call it is G.711 mu-law, 8 bytes a millisecond.
//!
//! Not here: the product's own audio code, which never decodes.

pub mod g711;
pub mod wav;

/// Samples (and, in G.711, bytes) in one millisecond of telephone audio.
pub const SAMPLES_PER_MS: usize = 8;

/// The G.711 mu-law byte of silence.
pub const MULAW_SILENCE: u8 = 0xff;

/// One recorded utterance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// The name of its files, without the ending.
    pub name: String,
    /// What is said.
    pub text: String,
    /// 8 kHz G.711 mu-law.
    pub mulaw: Vec<u8>,
}

impl Clip {
    /// How long it takes to say.
    pub fn duration_ms(&self) -> usize {
        self.mulaw.len() / SAMPLES_PER_MS
    }

    /// The audio as 16-bit samples at 8 kHz.
    pub fn samples(&self) -> Vec<i16> {
        g711::mulaw_to_pcm(&self.mulaw)
    }

    /// The audio in frames of 20 ms, as Twilio sends them, followed by `silence_ms` of silence.
    pub fn frames_then_silence(&self, silence_ms: usize) -> Vec<Vec<u8>> {
        let mut audio = self.mulaw.clone();
        audio.resize(audio.len() + silence_ms * SAMPLES_PER_MS, MULAW_SILENCE);
        let frame = 20 * SAMPLES_PER_MS;
        audio.resize(audio.len().next_multiple_of(frame), MULAW_SILENCE);
        audio.chunks(frame).map(<[u8]>::to_vec).collect()
    }
}

macro_rules! recordings {
    ($($name:literal),* $(,)?) => {
        &[$((
            $name,
            include_str!(concat!("../speech/", $name, ".txt")),
            include_bytes!(concat!("../speech/", $name, ".wav")),
        )),*]
    };
}

const RECORDINGS: &[(&str, &str, &[u8])] = recordings![
    "agent-greeting",
    "agent-hours",
    "agent-saturday",
    "agent-goodbye",
    "caller-appointment",
    "caller-interrupts",
    "caller-thanks",
];

/// The recording of this name.
///
/// # Panics
/// When there is none.
pub fn clip(name: &str) -> Clip {
    let (name, text, wav) = RECORDINGS
        .iter()
        .find(|recording| recording.0 == name)
        .unwrap_or_else(|| panic!("no recording is named {name}"));
    Clip {
        name: (*name).to_owned(),
        text: text.trim().to_owned(),
        mulaw: wav::parse_mulaw(wav).expect("the recordings are 8 kHz mono WAV files"),
    }
}

/// Everything the caller can be heard to say.
pub fn caller_clips() -> Vec<Clip> {
    RECORDINGS
        .iter()
        .filter(|recording| recording.0.starts_with("caller-"))
        .map(|recording| clip(recording.0))
        .collect()
}

/// Root mean square of some samples, in decibels below full scale; -96 for silence.
#[expect(clippy::cast_precision_loss, reason = "a frame has a few hundred samples")]
pub fn energy_dbfs(samples: &[i16]) -> f64 {
    let sum: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    let rms = (sum / samples.len().max(1) as f64).sqrt();
    (20.0 * (rms / 32768.0).log10()).max(-96.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recording_is_audible_speech_of_a_plausible_length() {
        for (name, ..) in RECORDINGS {
            let clip = clip(name);
            assert!((2_000..12_000).contains(&clip.duration_ms()), "{name}");
            let words = clip.text.split_whitespace().count();
            assert!((150..700).contains(&(clip.duration_ms() / words)), "{name}: ms a word");
            assert!(energy_dbfs(&clip.samples()) > -30.0, "{name} is too quiet");
        }
    }

    #[test]
    fn energy_is_measured_against_full_scale() {
        assert!((energy_dbfs(&[0; 160]) + 96.0).abs() < 0.01);
        assert!(energy_dbfs(&[i16::MIN; 160]).abs() < 0.01);
        assert!((energy_dbfs(&[-16384; 160]) + 6.02).abs() < 0.01);
    }

    #[test]
    fn frames_are_20_ms_and_end_in_the_silence_asked_for() {
        let clip = clip("caller-thanks");
        let frames = clip.frames_then_silence(600);
        assert!(frames.iter().all(|frame| frame.len() == 160));
        assert!(frames.len() * 20 >= clip.duration_ms() + 600);
        assert!(frames[frames.len() - 30..].concat().iter().all(|&byte| byte == MULAW_SILENCE));
    }
}
