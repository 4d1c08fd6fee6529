//! Responses that failed. OpenAI says so in `response.done` and nowhere else, and does not try again: a bridge that
//! overlooks it leaves the caller in silence.

use super::loss::Loss;
use super::{Action, Call, Millis};
use crate::bridge::openai::{self, ErrorBody, RateLimit, Voice};
use crate::bridge::responses::Ask;

/// How soon a response is asked for again after a fault of the moment, in milliseconds.
pub(super) const SERVER_AGAIN_MS: Millis = 200;
/// A session in which so many responses fail in a row is spoiled: another one may do better. Source: reports of its users.
const SERVER_TRIES: u32 = 2;
/// How long a limit on tokens lasts if nobody says, in milliseconds.
const LIMITED_MS: Millis = 2_000;
/// The caller waits in silence: not longer than this at once, in milliseconds, and not more often than the next says.
const LONGEST_WAIT_MS: Millis = 10_000;
const LIMITED_TRIES: u32 = 4;
/// So often in a row the model is told that its turn was cut off.
const CUT_OFF_TRIES: u32 = 1;

/// What failed since something succeeded.
#[derive(Debug, Default)]
pub(super) struct Retry {
    server: u32,
    limited: u32,
    cut_off: u32,
    /// When the failed response is asked for again, and what it was.
    again: Option<(Millis, Ask)>,
    /// When the account's limits are whole again, if one is used up.
    limits_reset: Option<Millis>,
}

impl Retry {
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.again.as_ref().map(|(at, _)| *at)
    }

    /// What is to be asked for again now.
    pub(super) fn due(&mut self, now: Millis) -> Option<Ask> {
        self.again.take_if(|(at, _)| now >= *at).map(|(_, ask)| ask)
    }

    /// The session is gone: gives what was to be asked for again. What failed counts no more.
    pub(super) fn abandon(&mut self) -> Option<Ask> {
        let Self { again, limits_reset, .. } = std::mem::take(self);
        self.limits_reset = limits_reset;
        again.map(|(_, ask)| ask)
    }

    /// Another response has come up, or will.
    pub(super) fn forget(&mut self) {
        self.again = None;
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self { limits_reset: self.limits_reset, ..Self::default() };
    }

    /// OpenAI tells what is left of the account's limits.
    pub(super) fn limits(&mut self, now: Millis, limits: &[RateLimit]) {
        let used_up = limits.iter().filter(|limit| limit.remaining.is_some_and(|remaining| remaining <= 0.0));
        self.limits_reset = used_up.filter_map(|limit| Some(now + millis(limit.reset_seconds?))).max();
    }

    /// How long to wait for the account's limits.
    fn limited_for(&self, now: Millis, error: &ErrorBody) -> Millis {
        let told = self.limits_reset.filter(|reset| *reset > now).map(|reset| reset - now);
        told.or_else(|| try_again_in(&error.message)).unwrap_or(LIMITED_MS).clamp(SERVER_AGAIN_MS, LONGEST_WAIT_MS)
    }
}

impl Call {
    /// A response failed; `ask` is what it was to say, unless nobody waits for that any more.
    pub(super) fn failed(&mut self, now: Millis, error: &ErrorBody, ask: Option<Ask>, out: &mut Vec<Action>) {
        out.push(Action::Fault { code: error.word().to_owned(), context: "response" });
        if let Some(loss) = Loss::of(error) {
            self.retry.again = ask.map(|ask| (now, ask));
            return self.model_lost(now, loss, out);
        }
        let is_limited = error.word().starts_with("rate_limit");
        let after = if is_limited {
            self.retry.limited += 1;
            (self.retry.limited < LIMITED_TRIES).then(|| self.retry.limited_for(now, error))
        } else {
            self.retry.server += 1;
            (self.retry.server < SERVER_TRIES).then_some(SERVER_AGAIN_MS)
        };
        // What is not tried again here is for the next session.
        self.retry.again = ask.map(|ask| (now + after.unwrap_or(0), ask));
        if after.is_none() {
            self.model_lost(now, Loss::Spoiled, out);
        }
    }

    /// A response was cut off by a filter or a limit on its length. The model is told, so that the caller hears an end.
    pub(super) fn incomplete(&mut self, reason: &str, ask: Option<&Ask>, out: &mut Vec<Action>) {
        let word = match reason {
            "content_filter" => {
                "Your last turn was withheld by a filter. Tell the caller in one short sentence that you cannot help \
                 with that, and ask what else you can do."
            }
            "max_output_tokens" => "Your last turn was cut off for its length. Go on where it stopped, and be brief.",
            _ => return,
        };
        out.push(Action::Fault { code: reason.to_owned(), context: "response" });
        if ask.is_some() && self.retry.cut_off < CUT_OFF_TRIES {
            self.retry.cut_off += 1;
            self.tell_model(openai::text_item(Voice::System, word), out);
            self.responses.wait(Ask::Turn);
        }
    }
}

/// "Please try again in 2s.", "… in 350ms": how OpenAI words its limits.
fn try_again_in(message: &str) -> Option<Millis> {
    let (_, after) = message.split_once("try again in ")?;
    let number: String = after.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let unit = &after[number.len()..];
    let value: f64 = number.trim_end_matches('.').parse().ok()?;
    if unit.starts_with("ms") {
        Some(millis(value / 1000.0))
    } else if unit.starts_with('s') {
        Some(millis(value))
    } else {
        None
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to an hour")]
fn millis(seconds: f64) -> Millis {
    (seconds.clamp(0.0, 3_600.0) * 1000.0).ceil() as Millis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_from_the_words() {
        assert_eq!(try_again_in("Rate limit reached. Please try again in 2s."), Some(2_000));
        assert_eq!(try_again_in("Please try again in 1.5s. Visit"), Some(1_500));
        assert_eq!(try_again_in("Please try again in 350ms."), Some(350));
        assert_eq!(try_again_in("Please try again in a moment"), None);
        assert_eq!(try_again_in("no"), None);
    }

    #[test]
    fn the_reset_that_was_told_goes_before_the_words() {
        let mut retry = Retry::default();
        let error = ErrorBody { message: "try again in 2s".into(), ..ErrorBody::default() };
        assert_eq!(retry.limited_for(0, &error), 2_000);
        let limit = |left, reset| RateLimit { remaining: Some(left), reset_seconds: Some(reset) };
        retry.limits(1_000, &[limit(10.0, 60.0), limit(0.0, 5.0)]);
        assert_eq!(retry.limited_for(2_000, &error), 4_000);
        retry.limits(1_000, &[limit(0.0, 500.0)]);
        assert_eq!(retry.limited_for(2_000, &error), LONGEST_WAIT_MS);
        assert_eq!(retry.limited_for(2_000, &ErrorBody::default()), LONGEST_WAIT_MS);
        assert_eq!(Retry::default().limited_for(0, &ErrorBody::default()), LIMITED_MS);
    }
}
