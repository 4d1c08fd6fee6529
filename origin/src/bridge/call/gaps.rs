//! Holes in the caller's audio, filled with silence so that a turn can end.
//!
//! Twilio sends nothing for a muted phone, a silent line or a lost frame; its timestamps then jump. OpenAI's turn
//! detection counts the audio that it gets: without any, it never sees the end of speech. Two remedies: what is missing
//! before a frame is filled by the timestamps, and while somebody speaks and no frame comes at all, by our clock. Both
//! move one position on Twilio's clock, so what the one has added the other does not add again.

use crate::bridge::playback::Millis;
use crate::bridge::wire::BYTES_PER_MS;

/// A smaller hole is none: one frame.
const LEAST_BYTES: u64 = 20 * BYTES_PER_MS;
/// The most that one hole is filled with: more than the 8 s for which a semantic turn detection waits.
const MOST_BYTES: u64 = 10_000 * BYTES_PER_MS;
/// So long a frame may be late while somebody speaks, in milliseconds.
const PATIENCE_MS: Millis = 750;
/// How often silence is added from then on, in milliseconds.
const EVERY_MS: Millis = 200;
/// If what was added is this far ahead of the timestamps, they did not count the hole: they count anew.
const LEAD_LIMIT_BYTES: u64 = 2_000 * BYTES_PER_MS;

/// Whether the caller is speaking, as far as OpenAI knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Speech {
    #[default]
    None,
    Open,
}

/// What the model has been given of the caller's time.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// Up to where on Twilio's clock, in bytes.
    given: Option<u64>,
    /// When the last frame came, or silence was added in its place, on our clock.
    last: Millis,
    /// Silence added since the last frame, in bytes.
    added: u64,
    speech: Speech,
}

impl Gaps {
    /// A frame has come that begins at `at_ms` on Twilio's clock; returns how much silence goes before it, in bytes.
    pub(super) fn frame(&mut self, now: Millis, at_ms: Option<u64>, bytes: u64) -> u64 {
        self.last = now;
        self.added = 0;
        let begins = at_ms.map(|at| at * BYTES_PER_MS);
        let (Some(given), Some(begins)) = (self.given, begins) else {
            self.given = begins.or(self.given).map(|at| at + bytes);
            return 0;
        };
        let missing = begins.saturating_sub(given);
        let lead = given.saturating_sub(begins);
        let in_step = missing < LEAST_BYTES && lead < LEAD_LIMIT_BYTES;
        self.given = Some(if in_step { given } else { begins } + bytes);
        if in_step { 0 } else { missing.min(MOST_BYTES) }
    }

    pub(super) fn speech(&mut self, now: Millis, speech: Speech) {
        if speech == Speech::Open && self.speech == Speech::None {
            // OpenAI has just heard audio, however late it told us.
            self.last = self.last.max(now.saturating_sub(PATIENCE_MS));
        }
        self.speech = speech;
    }

    /// When [`Self::due`] has silence to add.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let patience = if self.added == 0 { PATIENCE_MS } else { EVERY_MS };
        (self.speech == Speech::Open && self.added < MOST_BYTES).then_some(self.last + patience)
    }

    /// How much silence is to be added in place of frames that did not come, in bytes.
    pub(super) fn due(&mut self, now: Millis) -> u64 {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return 0;
        }
        let bytes = ((now - self.last) * BYTES_PER_MS).min(MOST_BYTES - self.added);
        self.last = now;
        self.added += bytes;
        self.given = self.given.map(|given| given + bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: u64 = 160;

    #[test]
    fn frames_in_step_need_nothing() {
        let mut gaps = Gaps::default();
        for n in 0..100 {
            // Twilio's timestamps are off by some milliseconds now and then.
            assert_eq!(gaps.frame(n * 20, Some(5 + n * 20 + n % 3), FRAME), 0);
        }
        assert_eq!(gaps.frame(0, None, FRAME), 0, "without a timestamp nothing is known");
    }

    #[test]
    fn a_hole_is_filled_by_the_timestamps_and_no_longer_than_ten_seconds() {
        let mut gaps = Gaps::default();
        gaps.frame(0, Some(0), FRAME);
        assert_eq!(gaps.frame(20, Some(40), FRAME), FRAME, "one frame was lost");
        assert_eq!(gaps.frame(500, Some(540), FRAME), 480 * 8);
        assert_eq!(gaps.frame(600, Some(100_000), FRAME), MOST_BYTES);
        assert_eq!(gaps.frame(620, Some(100_020), FRAME), 0);
    }

    #[test]
    fn speech_that_starves_gets_silence_until_it_ends() {
        let mut gaps = Gaps::default();
        gaps.frame(1000, Some(1000), FRAME);
        assert_eq!(gaps.deadline(), None, "nobody speaks");
        gaps.speech(1010, Speech::Open);
        assert_eq!(gaps.deadline(), Some(1750));
        assert_eq!(gaps.due(1749), 0);
        assert_eq!(gaps.due(1750), 750 * 8);
        assert_eq!(gaps.deadline(), Some(1950));
        assert_eq!(gaps.due(1950), 200 * 8);
        // What was added is not missing any more.
        assert_eq!(gaps.frame(2500, Some(2500), FRAME), (1500 - 20 - 950) * 8);
        gaps.speech(2510, Speech::None);
        assert_eq!(gaps.deadline(), None);
    }

    #[test]
    fn silence_is_bounded_even_if_speech_never_ends() {
        let mut gaps = Gaps::default();
        gaps.speech(0, Speech::Open);
        let mut total = 0;
        while let Some(deadline) = gaps.deadline() {
            total += gaps.due(deadline);
        }
        assert_eq!(total, MOST_BYTES);
    }

    #[test]
    fn timestamps_that_do_not_count_the_hole_count_anew() {
        let mut gaps = Gaps::default();
        gaps.frame(0, Some(0), FRAME);
        gaps.speech(0, Speech::Open);
        for now in [5000, 5200] {
            gaps.due(now);
        }
        assert_eq!(gaps.frame(5300, Some(20), FRAME), 0);
        assert_eq!(gaps.frame(5320, Some(140), FRAME), 100 * 8, "the next hole is filled again");
    }

    proptest! {
        /// However frames are lost and late: the model never lags behind Twilio's clock by more than a frame.
        #[test]
        fn nothing_drifts(holes in proptest::collection::vec((0u64..400, 0u64..900), 1..200)) {
            let mut gaps = Gaps::default();
            gaps.speech(0, Speech::Open);
            let (mut now, mut at, mut given) = (0, 0, 0);
            for (hole, late) in holes {
                at += hole;
                now += hole + late / 3;
                given += gaps.due(now) + gaps.frame(now, Some(at), FRAME) + FRAME;
                at += 20;
                prop_assert!(at * 8 < given + LEAST_BYTES + 400 * 8, "{at} {given}");
            }
        }
    }
}
