//! How much of the agent's audio the caller has heard.
//!
//! Twilio buffers what it is sent and plays it at 8 kHz, so "sent" says nothing about "heard". A mark after every 160 ms
//! or more, and at the end of every item, comes back when the audio before it has been played. Between two marks the
//! clock fills in, bounded by what was sent.
//!
//! All audio since the last `clear` lies on one line of bytes; each item owns stretches of it. After `clear` Twilio
//! returns every pending mark as if played: marks carry a generation, and those of an older one count for nothing.

use std::collections::VecDeque;

use super::wire::BYTES_PER_MS;

/// So much audio lies between two marks at least: more of them tell nothing new, and each is a message both ways.
const MARK_EVERY_BYTES: u64 = 160 * BYTES_PER_MS;

/// Milliseconds since the stream began, on the pump's clock.
pub type Millis = u64;

/// One audio part of one item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
    /// Notes audio that is being sent now; returns the name of the mark to send after it, if one is due.
    pub fn sent(&mut self, now: Millis, part: &Part, bytes: u64) -> Option<String> {
        if self.is_idle() {
            self.confirmed_at = now;
        }
        let start = self.sent;
        self.sent += bytes;
        let end = self.sent;
        match self.stretches.back_mut() {
            Some(last) if last.part == *part => last.end = end,
            _ => {
                let offset = self.sent_of(part);
                self.stretches.push_back(Stretch { part: part.clone(), offset, start, end });
            }
        }
        if self.sent - self.marked() >= MARK_EVERY_BYTES { self.mark() } else { None }
    }

    /// Ends what was sent so far; returns the name of the mark to send, unless the last one covers it all.
    pub fn mark(&mut self) -> Option<String> {
        if self.sent == self.marked() {
            return None;
        }
        let mark = self.next_mark;
        self.next_mark += 1;
        self.marks.push_back((mark, self.sent));
        Some(format!("g{}.{mark}", self.generation))
    }

    /// Up to where marks vouch, or will.
    fn marked(&self) -> u64 {
        self.marks.back().map_or(self.confirmed, |(_, position)| *position)
    }

    /// Bytes of a part that were sent since the last `clear`, as far as it is remembered: the last part always is.
    fn sent_of(&self, part: &Part) -> u64 {
        let stretches = self.stretches.iter().filter(|stretch| stretch.part == *part);
        stretches.map(|stretch| stretch.offset + stretch.end - stretch.start).max().unwrap_or(0)
    }

    /// What of the part that was sent last, if it is this one, the caller has heard or will hear, in milliseconds.
    pub fn last_sent_ms(&self, part: &Part) -> Option<u64> {
        let last = self.stretches.back().filter(|stretch| stretch.part == *part)?;
        Some((last.offset + last.end - last.start) / BYTES_PER_MS)
    }

    /// How long it takes at least until all that was sent has been played.
    pub fn remaining_ms(&self, now: Millis) -> Millis {
        ((self.sent - self.confirmed) / BYTES_PER_MS).saturating_sub(now.saturating_sub(self.confirmed_at))
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
        let mut parts: Vec<Heard> = Vec::new();
        for stretch in self.stretches.iter().filter(|stretch| stretch.end > self.confirmed) {
            let heard = position.clamp(stretch.start, stretch.end) - stretch.start;
            let sent_ms = (stretch.offset + stretch.end - stretch.start) / BYTES_PER_MS;
            match parts.iter_mut().find(|part| part.part == stretch.part) {
                None => {
                    let heard_ms = (stretch.offset + heard) / BYTES_PER_MS;
                    parts.push(Heard { part: stretch.part.clone(), heard_ms, sent_ms });
                }
                // It goes on after another part.
                Some(part) => {
                    part.heard_ms =
                        part.heard_ms.max(if heard > 0 { (stretch.offset + heard) / BYTES_PER_MS } else { 0 });
                    part.sent_ms = sent_ms;
                }
            }
        }
        parts
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

    /// Audio of which the end is marked.
    fn sent(playback: &mut Playback, now: Millis, item: &str, bytes: u64) -> String {
        playback.sent(now, &part(item), bytes).or_else(|| playback.mark()).unwrap()
    }

    fn part(item: &str) -> Part {
        Part { item_id: item.into(), content_index: 0 }
    }

    fn heard(item: &str, heard_ms: u64, sent_ms: u64) -> Heard {
        Heard { part: part(item), heard_ms, sent_ms }
    }

    #[test]
    fn the_clock_fills_in_between_marks() {
        let mut playback = Playback::default();
        let first = sent(&mut playback, 1000, "a", 1600);
        sent(&mut playback, 1001, "a", 1600);
        assert_eq!(playback.unfinished(1050), [heard("a", 50, 400)]);
        assert_eq!(playback.mark_returned(1230, &first), []);
        assert_eq!(playback.unfinished(1250), [heard("a", 220, 400)]);
        assert_eq!(playback.unfinished(9000), [heard("a", 400, 400)]);
    }

    #[test]
    fn marks_are_not_closer_than_160_ms_but_every_end_has_one() {
        let mut playback = Playback::default();
        assert_eq!(playback.sent(0, &part("a"), 1279), None);
        assert!(playback.sent(0, &part("a"), 1).is_some());
        assert_eq!(playback.mark(), None);
        assert_eq!(playback.sent(0, &part("a"), 160), None);
        let end = playback.mark().unwrap();
        assert_eq!(playback.remaining_ms(20), 160);
        assert_eq!(playback.mark_returned(190, &end), [heard("a", 180, 180)]);
        assert!(playback.is_idle());
        assert_eq!(playback.last_sent_ms(&part("a")), Some(180));
        assert_eq!(playback.last_sent_ms(&part("b")), None);
    }

    #[test]
    fn several_items_share_one_buffer() {
        let mut playback = Playback::default();
        let a = sent(&mut playback, 0, "a", 800);
        sent(&mut playback, 0, "b", 800);
        sent(&mut playback, 0, "c", 800);
        assert_eq!(playback.mark_returned(110, &a), [heard("a", 100, 100)]);
        assert_eq!(playback.clear(150), [heard("b", 40, 100), heard("c", 0, 100)]);
        assert!(playback.is_idle());
    }

    #[test]
    fn a_part_in_two_stretches_is_one() {
        let mut playback = Playback::default();
        for item in ["a", "b", "a"] {
            sent(&mut playback, 0, item, 800);
        }
        assert_eq!(playback.unfinished(50), [heard("a", 50, 200), heard("b", 0, 100)]);
        assert_eq!(playback.unfinished(250), [heard("a", 150, 200), heard("b", 100, 100)]);
    }

    #[test]
    fn marks_that_a_clear_returned_count_for_nothing() {
        let mut playback = Playback::default();
        let old = sent(&mut playback, 0, "a", 8000);
        playback.clear(10);
        let new = sent(&mut playback, 20, "b", 8000);
        assert_eq!(playback.mark_returned(30, &old), []);
        assert_eq!(playback.unfinished(30), [heard("b", 10, 1000)]);
        assert_eq!(playback.mark_returned(1020, &new), [heard("b", 1000, 1000)]);
        assert_eq!(playback.mark_returned(1030, "someone else's"), []);
    }

    #[test]
    fn an_item_that_goes_on_after_the_buffer_ran_dry() {
        let mut playback = Playback::default();
        let first = sent(&mut playback, 0, "a", 800);
        assert_eq!(playback.mark_returned(100, &first), [heard("a", 100, 100)]);
        assert!(playback.is_idle());
        sent(&mut playback, 5000, "a", 800);
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
                    0 | 1 => names.extend(playback.sent(now, &part(["a", "b", "c"][item]), bytes)),
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
