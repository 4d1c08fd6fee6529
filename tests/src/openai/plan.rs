//! Turns a reply into steps with times: what the service sends when, if nothing interrupts it.

use std::time::Duration;

use super::audio::{samples_in, whole_ms};
use super::script::{Ending, Pace, Part, Reply};
use super::usage::{AUDIO_OUT_MS, text_tokens};

/// One thing that a response does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    OpenMessage,
    Transcript(String),
    Audio(Vec<i16>),
    CloseMessage { is_whole: bool },
    OpenCall { name: String },
    Arguments(String),
    CloseCall,
    Finish(Ending),
}

/// A step and its time, counted from the beginning of the response.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planned {
    pub(super) due: Duration,
    pub(super) step: Step,
}

/// Sizes of audio deltas in samples, in turn: irregular, and never a whole number of telephone frames.
const CHUNKS: [usize; 7] = [401, 1999, 3203, 797, 4801, 1201, 2411];
/// Characters of a delta of function arguments.
const ARGUMENT_CHUNK: usize = 12;

/// What a response's own settings say about its output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) is_text_only: bool,
    pub(super) max_tokens: Option<u64>,
    /// Playing speed; 2.0 makes the same words half as long.
    pub(super) speed: f64,
}

/// The steps of a reply, in order.
pub(super) fn plan(reply: &Reply, pace: &Pace, limits: Limits) -> Vec<Planned> {
    let mut steps = Vec::new();
    let mut now = reply.think.unwrap_or(pace.first_token);
    let mut ending = reply.ending.clone();
    let mut tokens_left = limits.max_tokens.unwrap_or(u64::MAX);
    for (index, part) in reply.parts.iter().enumerate() {
        match part {
            Part::Call { name, arguments } => plan_call(&mut steps, now, name, arguments),
            Part::Speech(clip) => {
                let mut samples = at_speed(&clip.samples(), limits.speed);
                let full = samples.len();
                if limits.is_text_only {
                    samples.clear();
                }
                let words = text_tokens(&clip.text);
                let room_ms = tokens_left.saturating_sub(words).saturating_mul(AUDIO_OUT_MS);
                if whole_ms(samples.len()) > room_ms {
                    ending = Ending::Incomplete("max_output_tokens");
                }
                samples.truncate(samples_in(room_ms.min(reply.cut_at_ms.unwrap_or(u64::MAX))));
                let is_whole = limits.is_text_only || samples.len() == full;
                let spoken = words + whole_ms(samples.len()).div_ceil(AUDIO_OUT_MS);
                tokens_left = tokens_left.saturating_sub(spoken);
                let text = if is_whole { clip.text.clone() } else { share(&clip.text, samples.len(), full) };
                let pause = reply.pause.filter(|_| index == 0);
                let delay = |at_ms: u64| match pause {
                    Some(pause) if at_ms >= pause.at_ms => pause.length,
                    _ => Duration::ZERO,
                };
                now = plan_speech(&mut steps, now, &text, &samples, pace.times_real_time, delay);
                steps.push(Planned { due: now, step: Step::CloseMessage { is_whole } });
            }
        }
    }
    steps.push(Planned { due: now, step: Step::Finish(ending) });
    steps
}

fn plan_call(steps: &mut Vec<Planned>, due: Duration, name: &str, arguments: &str) {
    let mut push = |step| steps.push(Planned { due, step });
    push(Step::OpenCall { name: name.to_owned() });
    let characters: Vec<char> = arguments.chars().collect();
    for chunk in characters.chunks(ARGUMENT_CHUNK) {
        push(Step::Arguments(chunk.iter().collect()));
    }
    push(Step::CloseCall);
}

/// Returns when the last of it is out.
fn plan_speech(
    steps: &mut Vec<Planned>,
    start: Duration,
    text: &str,
    samples: &[i16],
    times_real_time: f64,
    delay: impl Fn(u64) -> Duration,
) -> Duration {
    steps.push(Planned { due: start, step: Step::OpenMessage });
    let first = steps.len();
    let out_at = |count: usize| {
        let played = Duration::from_millis(whole_ms(count));
        start + played.div_f64(times_real_time) + delay(whole_ms(count))
    };
    // Words come twice as fast as the audio that speaks them.
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    for (index, word) in words.iter().enumerate() {
        let due = out_at(samples.len() * index / words.len() / 2);
        steps.push(Planned { due, step: Step::Transcript((*word).to_owned()) });
    }
    let mut sent = 0;
    for size in CHUNKS.iter().cycle() {
        let chunk = &samples[sent..samples.len().min(sent + size)];
        if chunk.is_empty() {
            break;
        }
        steps.push(Planned { due: out_at(sent), step: Step::Audio(chunk.to_vec()) });
        sent += chunk.len();
    }
    // Stable: at equal times words stay before audio.
    steps[first..].sort_by_key(|planned| planned.due);
    steps.last().map_or(start, |planned| planned.due)
}

/// The words said in the first `part` of `whole` samples.
fn share(text: &str, part: usize, whole: usize) -> String {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    words[..words.len() * part / whole.max(1)].concat()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "lengths of a few hundred thousand samples, scaled by at most four"
)]
fn at_speed(samples: &[i16], speed: f64) -> Vec<i16> {
    let length = (samples.len() as f64 / speed) as usize;
    let source = |n: usize| (n as f64 * speed) as usize;
    (0..length).filter_map(|n| samples.get(source(n)).copied()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::speech::clip;

    const FREE: Limits = Limits { is_text_only: false, max_tokens: None, speed: 1.0 };

    fn audio_ms(steps: &[Planned]) -> u64 {
        let count = |planned: &Planned| match &planned.step {
            Step::Audio(samples) => samples.len(),
            _ => 0,
        };
        whole_ms(steps.iter().map(count).sum())
    }

    #[test]
    fn audio_is_ahead_of_playback_and_its_words_are_ahead_of_it() {
        let hours = clip("agent-hours");
        let steps = plan(&Reply::speech(hours.clone()), &Pace::default(), FREE);
        assert!(steps.is_sorted_by_key(|planned| planned.due));
        assert_eq!(audio_ms(&steps), hours.duration_ms() as u64);
        let last =
            |is: fn(&Step) -> bool| steps.iter().filter(|planned| is(&planned.step)).map(|planned| planned.due).max();
        let words = last(|step| matches!(step, Step::Transcript(_)));
        let audio = last(|step| matches!(step, Step::Audio(_)));
        assert!(words < audio && audio < Some(Duration::from_millis(hours.duration_ms() as u64 / 3)));
        let sizes = steps.iter().filter_map(|planned| match &planned.step {
            Step::Audio(samples) => Some(samples.len()),
            _ => None,
        });
        assert!(sizes.clone().count() > 20);
        assert_eq!(sizes.filter(|size| size % 160 == 0).count(), 0);
    }

    #[test]
    fn the_token_limit_cuts_the_speech_and_its_words() {
        let hours = clip("agent-hours");
        let limits = Limits { max_tokens: Some(text_tokens(&hours.text) + 20), ..FREE };
        let steps = plan(&Reply::speech(hours.clone()), &Pace::default(), limits);
        assert_eq!(audio_ms(&steps), 1000);
        assert!(steps.iter().any(|planned| planned.step == Step::CloseMessage { is_whole: false }));
        let ending = Step::Finish(Ending::Incomplete("max_output_tokens"));
        assert_eq!(steps.last().map(|planned| &planned.step), Some(&ending));
    }

    #[test]
    fn a_pause_shifts_what_follows_it() {
        let quick = plan(&Reply::speech(clip("agent-hours")), &Pace::default(), FREE);
        let reply = Reply::speech(clip("agent-hours")).pausing(2000, Duration::from_secs(3));
        let slow = plan(&reply, &Pace::default(), FREE);
        let end = |steps: &[Planned]| steps.last().expect("an end").due;
        assert_eq!(end(&slow), end(&quick) + Duration::from_secs(3));
    }

    #[test]
    fn arguments_come_in_pieces_that_add_up() {
        let arguments = json!({"department": "billing", "note": "größer"});
        let steps = plan(&Reply::tool_call("transfer", &arguments), &Pace::default(), FREE);
        let pieces: Vec<&str> = steps
            .iter()
            .filter_map(|planned| match &planned.step {
                Step::Arguments(piece) => Some(piece.as_str()),
                _ => None,
            })
            .collect();
        assert!(pieces.len() > 2);
        assert_eq!(pieces.concat(), arguments.to_string());
    }
}
