//! Whether Twilio is still there. Its audio may stop while the call goes on, on a muted or lossy line, so silence alone
//! proves nothing: it is asked with a ping, and a stream that answers nothing at all is dead.

use std::time::Duration;

/// How often it is looked at: a dead stream is noticed after two to three times this.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(4);

/// What was heard since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watch {
    /// Something.
    #[default]
    Alive,
    /// Nothing.
    Quiet,
    /// Nothing, not even an answer to our ping.
    Asked,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Ask,
    Dead,
}

impl Watch {
    /// The time for a look has come.
    pub(super) fn check(&mut self) -> Verdict {
        let (next, verdict) = match self {
            Self::Alive => (Self::Quiet, Verdict::Fine),
            Self::Quiet => (Self::Asked, Verdict::Ask),
            Self::Asked => (Self::Asked, Verdict::Dead),
        };
        *self = next;
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_asked_about_and_only_then_death() {
        let mut watch = Watch::default();
        assert_eq!([watch.check(), watch.check(), watch.check()], [Verdict::Fine, Verdict::Ask, Verdict::Dead]);
        for _ in 0..3 {
            watch = Watch::Alive;
            assert_eq!((watch.check(), watch.check()), (Verdict::Fine, Verdict::Ask));
        }
    }
}
