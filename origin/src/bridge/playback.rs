//! How much of the agent's audio the caller has heard.
//!
//! Twilio buffers what it is sent and plays it at 8 kHz, so "sent" says nothing about "heard". A mark after every piece
//! comes back when the piece has been played. Between two marks the clock fills in, bounded by what was sent.
//!
//! All audio since the last `clear` lies on one line of bytes; each item owns stretches of it. After `clear` Twilio
//! returns every pending mark as if played: marks carry a generation, and those of an older one count for nothing.

use std::collections::VecDeque;

use super::wire::BYTES_PER_MS;

/// Milliseconds since the stream began, on the pump's clock.
pub type Millis = u64;

/// One audio part of one item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// The conversation item.
    pub item_id: String,
    /// Which of its contents.
    pub content_index: u32,
}

/// How far a part was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The part.
    pub part: Part,
    /// What of it has been played, in milliseconds.
    pub heard_ms: u64,
    /// What of it was sent, in milliseconds.
    pub sent_ms: u64,
}

/// A stretch of the line that belongs to one part.
#[derive(Debug)]
struct Stretch {
    part: Part,
    /// Bytes of the part that were sent before this stretch.
    offset: u64,
    start: u64,
    end: u64,
}

/// The ledger of one stream.
#[derive(Debug, Default)]
pub struct Playback {
    generation: u32,
    next_mark: u32,
    /// Marks that have not come back, with the position up to which each vouches.
    marks: VecDeque<(u32, u64)>,
    stretches: VecDeque<Stretch>,
    sent: u64,
    confirmed: u64,
    confirmed_at: Millis,
}

impl Playback {
    /// Notes audio that is being sent now; returns the name of the mark to send after it.
    pub fn sent(&mut self, now: Millis, part: &Part, bytes: u64) -> String {
        if self.is_idle() {
            self.confirmed_at = now;
        }
        let start = self.sent;
        self.sent += bytes;
        let end = self.sent;
        match self.stretches.back_mut() {
            Some(last) if last.part == *part => last.end = end,
            _ => {
                let offset =
                    self.stretches.iter().filter(|s| s.part == *part).map(|s| s.offset + s.end - s.start).max();
                self.stretches.push_back(Stretch { part: part.clone(), offset: offset.unwrap_or(0), start, end });
            }
        }
        let mark = self.next_mark;
        self.next_mark += 1;
        self.marks.push_back((mark, end));
        format!("g{}.{mark}", self.generation)
    }

    /// Takes a mark that came back; returns the parts of which everything sent so far has now been heard.
    pub fn mark_returned(&mut self, now: Millis, name: &str) -> Vec<Heard> {
        let Some(mark) = self.own_mark(name) else { return Vec::new() };
        let Some(position) = self.marks.iter().find(|(pending, _)| *pending == mark).map(|(_, position)| *position)
        else {
            return Vec::new();
        };
        self.marks.retain(|(pending, _)| *pending > mark);
        self.confirmed = position;
        self.confirmed_at = now;

        let mut finished = Vec::new();
        while let Some(stretch) = self.stretches.front() {
            if stretch.end > position {
                break;
            }
            let total_ms = (stretch.offset + stretch.end - stretch.start) / BYTES_PER_MS;
            finished.push(Heard { part: stretch.part.clone(), heard_ms: total_ms, sent_ms: total_ms });
            // The last stretch stays, so that a part that goes on after a pause keeps its offset.
            if self.stretches.len() == 1 {
                break;
            }
            self.stretches.pop_front();
        }
        finished
    }

    /// Whether everything that was sent has been played.
    pub fn is_idle(&self) -> bool {
        self.confirmed == self.sent
    }

    /// What the caller has heard of each part that is not finished. Parts never reached have heard nothing.
    pub fn unfinished(&self, now: Millis) -> Vec<Heard> {
        let elapsed = now.saturating_sub(self.confirmed_at) * BYTES_PER_MS;
        let position = self.sent.min(self.confirmed + elapsed);
        self.stretches
            .iter()
            .filter(|stretch| stretch.end > self.confirmed)
            .map(|stretch| Heard {
                part: stretch.part.clone(),
                heard_ms: (stretch.offset + position.clamp(stretch.start, stretch.end) - stretch.start) / BYTES_PER_MS,
                sent_ms: (stretch.offset + stretch.end - stretch.start) / BYTES_PER_MS,
            })
            .collect()
    }

    /// Starts a new generation, after `clear`; returns what [`Self::unfinished`] said before.
    pub fn clear(&mut self, now: Millis) -> Vec<Heard> {
        let cut = self.unfinished(now);
        *self = Self { generation: self.generation + 1, ..Self::default() };
        cut
    }

    fn own_mark(&self, name: &str) -> Option<u32> {
        let (generation, mark) = name.strip_prefix('g')?.split_once('.')?;
        (generation.parse() == Ok(self.generation)).then(|| mark.parse().ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(item: &str) -> Part {
        Part { item_id: item.into(), content_index: 0 }
    }

    fn heard(item: &str, heard_ms: u64, sent_ms: u64) -> Heard {
        Heard { part: part(item), heard_ms, sent_ms }
    }

    #[test]
    fn the_clock_fills_in_between_marks() {
        let mut playback = Playback::default();
        let first = playback.sent(1000, &part("a"), 1600);
        playback.sent(1001, &part("a"), 1600);
        assert_eq!(playback.unfinished(1050), [heard("a", 50, 400)]);
        assert_eq!(playback.mark_returned(1230, &first), []);
        assert_eq!(playback.unfinished(1250), [heard("a", 220, 400)]);
        assert_eq!(playback.unfinished(9000), [heard("a", 400, 400)]);
    }

    #[test]
    fn several_items_share_one_buffer() {
        let mut playback = Playback::default();
        let a = playback.sent(0, &part("a"), 800);
        playback.sent(0, &part("b"), 800);
        playback.sent(0, &part("c"), 800);
        assert_eq!(playback.mark_returned(110, &a), [heard("a", 100, 100)]);
        assert_eq!(playback.clear(150), [heard("b", 40, 100), heard("c", 0, 100)]);
        assert!(playback.is_idle());
    }

    #[test]
    fn marks_that_a_clear_returned_count_for_nothing() {
        let mut playback = Playback::default();
        let old = playback.sent(0, &part("a"), 8000);
        playback.clear(10);
        let new = playback.sent(20, &part("b"), 8000);
        assert_eq!(playback.mark_returned(30, &old), []);
        assert_eq!(playback.unfinished(30), [heard("b", 10, 1000)]);
        assert_eq!(playback.mark_returned(1020, &new), [heard("b", 1000, 1000)]);
        assert_eq!(playback.mark_returned(1030, "someone else's"), []);
    }

    #[test]
    fn an_item_that_goes_on_after_the_buffer_ran_dry() {
        let mut playback = Playback::default();
        let first = playback.sent(0, &part("a"), 800);
        assert_eq!(playback.mark_returned(100, &first), [heard("a", 100, 100)]);
        assert!(playback.is_idle());
        playback.sent(5000, &part("a"), 800);
        assert_eq!(playback.unfinished(5030), [heard("a", 130, 200)]);
    }

    proptest! {
        #[test]
        fn never_more_heard_than_sent(steps in proptest::collection::vec((0u8..4, 0usize..3, 1u64..4000, 0u64..500), 1..60)) {
            let mut playback = Playback::default();
            let mut names = VecDeque::new();
            let mut now = 0;
            for (what, item, bytes, wait) in steps {
                now += wait;
                match what {
                    0 | 1 => names.push_back(playback.sent(now, &part(["a", "b", "c"][item]), bytes)),
                    2 => {
                        if let Some(name) = names.pop_front() {
                            playback.mark_returned(now, &name);
                        }
                    }
                    _ => {
                        playback.clear(now);
                        prop_assert!(playback.is_idle());
                    }
                }
                for heard in playback.unfinished(now) {
                    prop_assert!(heard.heard_ms <= heard.sent_ms);
                }
            }
        }
    }
}
