//! Recognises which recording was spoken, in place of a speech recogniser.
//!
//! Compared are the envelopes (loudness every 10 ms), so that a change of format, a little noise or a shifted
//! start do not matter, but a sentence cut in half, or the noise that misread audio becomes, does.

use super::audio::samples_in;
use crate::speech::{Clip, energy_dbfs};

/// Audio before its first word or after its last that an item may lack: 500 ms.
const SLACK: usize = 50;
/// From here on, two envelopes are of the same sentence. Different sentences stay below 0.6.
const SAME: f64 = 0.85;
const FLOOR_DBFS: f64 = -60.0;

/// Knows some recordings.
#[derive(Debug)]
pub(super) struct Recogniser {
    known: Vec<(Clip, Vec<f64>)>,
}

impl Recogniser {
    pub(super) fn new(clips: Vec<Clip>) -> Self {
        let with_envelope = |clip: Clip| {
            let envelope = envelope(&clip.samples());
            (clip, envelope)
        };
        Self { known: clips.into_iter().map(with_envelope).collect() }
    }

    /// The recording that this audio holds as a whole.
    pub(super) fn recognise(&self, audio: &[i16]) -> Option<&Clip> {
        let heard = envelope(audio);
        self.known
            .iter()
            .map(|(clip, envelope)| (clip, likeness(envelope, &heard)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, likeness)| *likeness >= SAME)
            .map(|(clip, _)| clip)
    }

    /// What a recording says.
    pub(super) fn text_of(&self, name: &str) -> Option<String> {
        self.known.iter().find(|(clip, _)| clip.name == name).map(|(clip, _)| clip.text.clone())
    }
}

fn envelope(samples: &[i16]) -> Vec<f64> {
    samples.chunks(samples_in(10)).map(|part| energy_dbfs(part).max(FLOOR_DBFS)).collect()
}

/// The best correlation of the recording with the audio, over all places where it may begin.
fn likeness(recording: &[f64], heard: &[f64]) -> f64 {
    let shifts = (heard.len() + 2 * SLACK).saturating_sub(recording.len());
    let at = |place: usize| place.checked_sub(SLACK).and_then(|at| heard.get(at)).copied();
    (0..=shifts).map(|shift| correlation(recording, |n| at(shift + n).unwrap_or(FLOOR_DBFS))).fold(0.0, f64::max)
}

/// Pearson's correlation.
#[expect(clippy::cast_precision_loss, reason = "an envelope has a few thousand points")]
fn correlation(a: &[f64], b: impl Fn(usize) -> f64) -> f64 {
    let count = a.len() as f64;
    let mean_a = a.iter().sum::<f64>() / count;
    let mean_b = (0..a.len()).map(&b).sum::<f64>() / count;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (n, value) in a.iter().enumerate() {
        let (da, db) = (value - mean_a, b(n) - mean_b);
        ab += da * db;
        aa += da * da;
        bb += db * db;
    }
    if aa * bb == 0.0 { 0.0 } else { ab / (aa * bb).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::audio::{Decoder, Format};
    use crate::speech::{caller_clips, clip};

    fn heard(audio: &[i16]) -> Option<String> {
        let recogniser = Recogniser::new(caller_clips());
        recogniser.recognise(audio).map(|clip| clip.name.clone())
    }

    #[test]
    fn each_recording_is_recognised_wherever_it_begins() {
        for clip in caller_clips() {
            for before_ms in [0, 7, 300, 1234] {
                let mut audio = vec![0; samples_in(before_ms)];
                audio.extend(clip.samples());
                audio.extend(vec![0; samples_in(500)]);
                assert_eq!(heard(&audio), Some(clip.name.clone()), "after {before_ms} ms");
            }
        }
    }

    #[test]
    fn other_audio_is_not() {
        assert_eq!(heard(&vec![0; 8000]), None);
        assert_eq!(heard(&clip("agent-hours").samples()), None);
        let whole = clip("caller-appointment").samples();
        assert_eq!(heard(&whole[..whole.len() / 2]), None, "half a sentence");
        let misread = Decoder::new(Format::Pcm24k).decode(&clip("caller-appointment").mulaw);
        assert_eq!(heard(&misread), None, "mu-law read as PCM");
    }
}
