//! Dead air: the silence that a caller has reason to complain about.
//!
//! A run of dead air is time on an answered call in which nothing audible comes from our side,
//! nobody asked for it with `<Pause>`, and the caller is not speaking. It begins with the answer, with
//! the end of our sound or with the end of the caller's words, whichever is last, and ends with the
//! next sound of either side or with the call. A `<Pause>` inside a run is not counted but does not
//! end it. So the wait for an agent's answer counts, as does the wait for a webhook between two verbs.

use super::line::FRAME_MS;

/// Runs shorter than this are pauses of speech and are not listed.
const LISTED_MS: u64 = 500;

/// One run of dead air. Milliseconds of the call's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// When it began.
    pub from_ms: u64,
    /// How long it lasted, without the `<Pause>` time inside it.
    pub length_ms: u64,
}

/// What one frame was like for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Sound,
    OwnVoice,
    AskedPause,
    Nothing,
}

#[derive(Debug, Default)]
pub(crate) struct DeadAir {
    run: Option<Gap>,
    longest_ms: u64,
    gaps: Vec<Gap>,
}

impl DeadAir {
    pub(crate) fn frame(&mut self, at_ms: u64, heard: Heard) {
        match heard {
            Heard::Nothing => {
                let run = self.run.get_or_insert(Gap { from_ms: at_ms, length_ms: 0 });
                run.length_ms += FRAME_MS;
                self.longest_ms = self.longest_ms.max(run.length_ms);
            }
            Heard::AskedPause => {}
            Heard::Sound | Heard::OwnVoice => {
                self.gaps.extend(self.run.take().filter(|gap| gap.length_ms >= LISTED_MS));
            }
        }
    }

    pub(crate) fn longest_ms(&self) -> u64 {
        self.longest_ms
    }

    /// The runs of half a second and more, the open one included.
    pub(crate) fn gaps(&self) -> Vec<Gap> {
        let open = self.run.filter(|gap| gap.length_ms >= LISTED_MS);
        self.gaps.iter().copied().chain(open).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_with_a_sound_of_either_side_and_skip_pauses() {
        let mut dead = DeadAir::default();
        let mut at_ms = 0;
        let mut run = |dead: &mut DeadAir, heard, frames| {
            for _ in 0..frames {
                dead.frame(at_ms, heard);
                at_ms += FRAME_MS;
            }
        };
        run(&mut dead, Heard::Nothing, 10);
        run(&mut dead, Heard::Sound, 1);
        run(&mut dead, Heard::Nothing, 20);
        run(&mut dead, Heard::AskedPause, 100);
        run(&mut dead, Heard::Nothing, 10);
        run(&mut dead, Heard::OwnVoice, 1);
        run(&mut dead, Heard::Nothing, 5);
        assert_eq!(dead.longest_ms(), 600);
        assert_eq!(dead.gaps(), [Gap { from_ms: 220, length_ms: 600 }]);
    }
}
