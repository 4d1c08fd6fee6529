//! Two tracks on one line of time, from the messages that pass between Twilio and the bridge: pure, nothing is read or
//! written here.
//!
//! The caller's frames say when they belong. The agent's audio is queued at Twilio: a piece begins when the one before
//! it ends, or at once if nothing is queued. What `clear` removes is cut off again, at the position that was heard, by
//! the same reckoning as in the transcript: the last mark that came back, and the time since.

use std::collections::VecDeque;

/// Bytes of mu-law in a millisecond.
const BYTES_PER_MS: u64 = 8;

/// What is to be done with the tracks' files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Append silence and then audio to the caller's track.
    Caller { silence: u64, audio: Vec<u8> },
    /// Append silence and then audio to the agent's track.
    Agent { silence: u64, audio: Vec<u8> },
    /// Shorten the agent's track to so many bytes.
    CutAgent { to: u64 },
}

/// A piece of the agent's audio that may still be cleared.
#[derive(Debug)]
struct Piece {
    /// Where it stands in the track.
    at: u64,
    /// Where it stands among all that was sent since the last clear.
    from: u64,
    to: u64,
}

/// Both tracks' state; all positions are in bytes.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    /// What Twilio's time stamps lack to our time.
    caller_offset: Option<u64>,
    caller: u64,
    agent: u64,
    pieces: VecDeque<Piece>,
    /// Marks that have not come back, with what was sent before them.
    marks: VecDeque<(String, u64)>,
    sent: u64,
    confirmed: u64,
    confirmed_at_ms: u64,
}

impl Tracks {
    /// A frame of the caller's, with Twilio's time stamp. Times are in milliseconds since the stream began.
    pub(super) fn caller(&mut self, now_ms: u64, timestamp_ms: u64, audio: Vec<u8>) -> Op {
        let offset = *self.caller_offset.get_or_insert(now_ms.saturating_sub(timestamp_ms));
        let silence = ((timestamp_ms + offset) * BYTES_PER_MS).saturating_sub(self.caller);
        self.caller += silence + audio.len() as u64;
        Op::Caller { silence, audio }
    }

    /// Audio of the agent's that is sent now.
    pub(super) fn agent(&mut self, now_ms: u64, audio: Vec<u8>) -> Op {
        if self.confirmed == self.sent {
            self.confirmed_at_ms = now_ms;
        }
        let silence = if self.confirmed == self.sent { (now_ms * BYTES_PER_MS).saturating_sub(self.agent) } else { 0 };
        self.agent += silence;
        let length = audio.len() as u64;
        self.pieces.push_back(Piece { at: self.agent, from: self.sent, to: self.sent + length });
        self.agent += length;
        self.sent += length;
        Op::Agent { silence, audio }
    }

    /// A mark that is sent now.
    pub(super) fn mark_sent(&mut self, name: &str) {
        self.marks.push_back((name.to_owned(), self.sent));
    }

    /// A mark that has come back.
    pub(super) fn mark_returned(&mut self, now_ms: u64, name: &str) {
        let Some(index) = self.marks.iter().position(|(pending, _)| pending == name) else { return };
        let Some((_, position)) = self.marks.drain(..=index).next_back() else { return };
        self.confirmed = position;
        self.confirmed_at_ms = now_ms;
        self.pieces.retain(|piece| piece.to > position);
    }

    /// Whatever has not been played is not going to be: after `clear`, and at the end.
    pub(super) fn clear(&mut self, now_ms: u64) -> Option<Op> {
        let elapsed = now_ms.saturating_sub(self.confirmed_at_ms) * BYTES_PER_MS;
        let heard = self.sent.min(self.confirmed + elapsed);
        let first = self.pieces.iter().find(|piece| piece.to > heard);
        let cut = first.map(|piece| piece.at + heard.saturating_sub(piece.from));
        self.pieces.clear();
        self.marks.clear();
        self.sent = 0;
        self.confirmed = 0;
        let to = cut?;
        self.agent = to;
        Some(Op::CutAgent { to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: u8 = 0xff;

    /// The tracks as files would hold them.
    #[derive(Default)]
    struct Files {
        caller: Vec<u8>,
        agent: Vec<u8>,
    }

    impl Files {
        fn apply(&mut self, op: Op) {
            let append = |track: &mut Vec<u8>, silence: u64, audio: Vec<u8>| {
                track.extend(std::iter::repeat_n(SILENCE, usize::try_from(silence).unwrap()));
                track.extend(audio);
            };
            match op {
                Op::Caller { silence, audio } => append(&mut self.caller, silence, audio),
                Op::Agent { silence, audio } => append(&mut self.agent, silence, audio),
                Op::CutAgent { to } => self.agent.truncate(usize::try_from(to).unwrap()),
            }
        }

        /// Runs of equal bytes, in milliseconds.
        fn runs(track: &[u8]) -> Vec<(u8, usize)> {
            track.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() / 8)).collect()
        }
    }

    fn ms(byte: u8, ms: usize) -> Vec<u8> {
        vec![byte; ms * 8]
    }

    #[test]
    fn the_callers_frames_stand_where_they_belong() {
        let (mut tracks, mut files) = (Tracks::default(), Files::default());
        // A burst after a pause of ours changes nothing; a gap of Twilio's is silence.
        for (now, timestamp, byte) in [(50, 20, 1), (70, 40, 2), (300, 60, 3), (300, 80, 4), (310, 200, 5)] {
            files.apply(tracks.caller(now, timestamp, ms(byte, 20)));
        }
        assert_eq!(
            Files::runs(&files.caller),
            [(SILENCE, 50), (1, 20), (2, 20), (3, 20), (4, 20), (SILENCE, 100), (5, 20)]
        );
    }

    #[test]
    fn what_was_cleared_is_not_in_it() {
        let (mut tracks, mut files) = (Tracks::default(), Files::default());
        files.apply(tracks.agent(100, ms(1, 200)));
        tracks.mark_sent("a");
        files.apply(tracks.agent(101, ms(2, 200)));
        tracks.mark_sent("b");
        files.apply(tracks.agent(102, ms(3, 200)));
        tracks.mark_returned(330, "a");
        // 50 ms after the mark: 50 ms of the second piece.
        files.apply(tracks.clear(380).unwrap());
        assert_eq!(Files::runs(&files.agent), [(SILENCE, 100), (1, 200), (2, 50)]);
        // Twilio returns the marks of what it cleared as if played.
        tracks.mark_returned(385, "b");
        files.apply(tracks.agent(1000, ms(4, 100)));
        tracks.mark_sent("c");
        tracks.mark_returned(1120, "c");
        assert_eq!(tracks.clear(2000), None, "all of it was heard");
        assert_eq!(Files::runs(&files.agent), [(SILENCE, 100), (1, 200), (2, 50), (SILENCE, 650), (4, 100)]);
    }

    #[test]
    fn pieces_follow_each_other_without_a_gap() {
        let (mut tracks, mut files) = (Tracks::default(), Files::default());
        files.apply(tracks.agent(0, ms(1, 100)));
        tracks.mark_sent("a");
        files.apply(tracks.agent(90, ms(2, 100)));
        assert_eq!(Files::runs(&files.agent), [(1, 100), (2, 100)]);
        // Nothing of the second has been played when the first one's mark comes late.
        tracks.mark_returned(130, "a");
        files.apply(tracks.clear(130).unwrap());
        assert_eq!(Files::runs(&files.agent), [(1, 100)]);
    }
}
