//! What our side has sent to be played: the audio buffer of one stream and its marks.
//!
//! Pure: time is an argument. The rules are Twilio's: audio plays in order at 8 kHz however fast it
//! came, a mark comes back when the audio before it has been played, at once if nothing is buffered,
//! and every pending mark comes back when the buffer is cleared.

use std::collections::VecDeque;

use super::line::{FRAME, Frame};
use super::sound::SILENCE;

/// One `media` message of our side: when it came and what became of it. Microseconds of the call's clock.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChunkFact {
    /// When the message arrived.
    pub arrived_us: u64,
    /// When its first byte was played to the caller; `None` if it was cleared before.
    pub played_us: Option<u64>,
    /// Length of the audio in bytes (8 are a millisecond).
    pub bytes: usize,
    /// How many of them a `clear` threw away.
    pub cleared_bytes: usize,
}

/// The buffer.
#[derive(Debug, Default)]
pub(crate) struct Playback {
    queue: VecDeque<Item>,
    /// The frame given out last is still playing: its marks wait for the next frame.
    in_air: bool,
    due: Vec<String>,
    chunks: Vec<ChunkFact>,
}

#[derive(Debug)]
enum Item {
    Audio { chunk: usize, bytes: Vec<u8>, position: usize },
    Mark(String),
}

/// What one 20 ms of playing gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Played {
    pub(crate) frame: Frame,
    /// Marks whose audio had been played when this frame began.
    pub(crate) marks: Vec<String>,
}

/// What a `clear` gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cleared {
    pub(crate) dropped_ms: u64,
    pub(crate) marks: Vec<String>,
}

impl Playback {
    pub(crate) fn media(&mut self, bytes: Vec<u8>, at_us: u64) {
        let fact = ChunkFact { arrived_us: at_us, played_us: None, bytes: bytes.len(), cleared_bytes: 0 };
        self.chunks.push(fact);
        if !bytes.is_empty() {
            self.queue.push_back(Item::Audio { chunk: self.chunks.len() - 1, bytes, position: 0 });
        }
    }

    /// Takes a mark in; gives it back if nothing is waiting to be played.
    #[must_use]
    pub(crate) fn mark(&mut self, name: String) -> Option<String> {
        if !self.queue.is_empty() {
            self.queue.push_back(Item::Mark(name));
            None
        } else if self.in_air {
            self.due.push(name);
            None
        } else {
            Some(name)
        }
    }

    #[must_use]
    pub(crate) fn clear(&mut self) -> Cleared {
        let mut marks = std::mem::take(&mut self.due);
        let mut dropped = 0;
        for item in self.queue.drain(..) {
            match item {
                Item::Mark(name) => marks.push(name),
                Item::Audio { chunk, bytes, position } => {
                    let left = bytes.len() - position;
                    self.chunks[chunk].cleared_bytes = left;
                    dropped += left;
                }
            }
        }
        Cleared { dropped_ms: dropped as u64 / 8, marks }
    }

    /// Plays the next 20 ms, which begin at `at_us`. Missing audio is silence.
    #[must_use]
    pub(crate) fn play(&mut self, at_us: u64) -> Played {
        let mut frame = [SILENCE; FRAME];
        let mut marks = std::mem::take(&mut self.due);
        let mut filled = 0;
        while let Some(item) = self.queue.front_mut() {
            match item {
                Item::Mark(name) => {
                    let name = std::mem::take(name);
                    if filled == 0 {
                        marks.push(name);
                    } else {
                        self.due.push(name);
                    }
                    self.queue.pop_front();
                }
                Item::Audio { chunk, bytes, position } => {
                    if filled == FRAME {
                        break;
                    }
                    let take = (FRAME - filled).min(bytes.len() - *position);
                    frame[filled..filled + take].copy_from_slice(&bytes[*position..*position + take]);
                    let fact = &mut self.chunks[*chunk];
                    // A frame that is computed late began, on the nominal clock, before what is in it came.
                    fact.played_us.get_or_insert(at_us.max(fact.arrived_us));
                    filled += take;
                    *position += take;
                    if *position == bytes.len() {
                        self.queue.pop_front();
                    }
                }
            }
        }
        self.in_air = filled > 0;
        Played { frame, marks }
    }

    pub(crate) fn chunks(&self) -> &[ChunkFact] {
        &self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(playback: &mut Playback) -> Vec<String> {
        playback.play(0).marks
    }

    #[test]
    fn a_mark_comes_back_at_once_when_nothing_is_buffered() {
        assert_eq!(Playback::default().mark("m".to_owned()), Some("m".to_owned()));
    }

    #[test]
    fn a_mark_waits_until_the_audio_before_it_has_been_played() {
        let mut playback = Playback::default();
        playback.media(vec![1; FRAME * 2], 0);
        assert_eq!(playback.mark("two".to_owned()), None);
        playback.media(vec![2; FRAME], 0);
        assert_eq!(playback.mark("three".to_owned()), None);
        assert_eq!(playback.play(0).frame, [1; FRAME]);
        assert!(marks(&mut playback).is_empty(), "the second frame begins: it has not been heard yet");
        let third = playback.play(0);
        assert_eq!((third.frame, third.marks), ([2; FRAME], vec!["two".to_owned()]));
        assert_eq!(marks(&mut playback), ["three"]);
    }

    #[test]
    fn a_mark_sent_while_the_last_frame_is_in_the_air_waits_for_its_end() {
        let mut playback = Playback::default();
        playback.media(vec![1; 80], 0);
        let played = playback.play(0);
        assert_eq!((&played.frame[..80], &played.frame[80..]), (&[1; 80][..], &[SILENCE; 80][..]));
        assert_eq!(playback.mark("late".to_owned()), None);
        assert_eq!(marks(&mut playback), ["late"]);
        assert_eq!(playback.mark("idle".to_owned()), Some("idle".to_owned()));
    }

    #[test]
    fn chunks_of_any_size_join_without_a_gap() {
        let mut playback = Playback::default();
        for byte in 0..8 {
            playback.media(vec![byte; 100], 0);
        }
        let heard: Vec<u8> = (0..5).flat_map(|_| playback.play(0).frame).collect();
        let sent: Vec<u8> = (0..8).flat_map(|byte| vec![byte; 100]).collect();
        assert_eq!(heard, sent);
    }

    #[test]
    fn clear_drops_the_audio_and_gives_every_pending_mark_back_in_order() {
        let mut playback = Playback::default();
        playback.media(vec![1; 80], 5);
        assert_eq!(playback.mark("first".to_owned()), None);
        let _ = playback.play(10);
        playback.media(vec![1; 1600], 20);
        assert_eq!(playback.mark("second".to_owned()), None);
        let cleared = playback.clear();
        assert_eq!(cleared, Cleared { dropped_ms: 200, marks: vec!["first".to_owned(), "second".to_owned()] });
        assert_eq!(playback.play(30), Played { frame: [SILENCE; FRAME], marks: vec![] });
        let facts = playback.chunks();
        assert_eq!((facts[0].arrived_us, facts[0].played_us), (5, Some(10)));
        assert_eq!((facts[1].played_us, facts[1].cleared_bytes), (None, 1600));
    }
}
