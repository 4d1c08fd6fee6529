//! Sessions at OpenAI, from the first attempt to a confirmed one.
//!
//! A session is of use once OpenAI has confirmed its settings: before that it would read mu-law as something else. An
//! attempt that says nothing soon gets company, because the caller hears nothing meanwhile and a second one often
//! succeeds at once; attempts are few, because there are others who can take the call. What would fail again is not
//! tried again.

use std::pin::pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::call::SESSION_EVENT_ID;
use super::openai::{ErrorBody, Event, Turns};
use super::playback::Millis;
use crate::config::OpenAi;
use crate::providers::openai::{self, ConnectError, Socket};

/// While the caller waits for the first word. In normal times it is there after half a second.
const AT_START: Patience =
    Patience { alone: Duration::from_millis(700), pauses_ms: &[0, 200], limit: Duration::from_millis(2500) };
/// In a conversation, which is worth more than another system's fresh start.
const IN_MID_CALL: Patience =
    Patience { alone: Duration::from_secs(1), pauses_ms: &[0, 100, 400, 1000, 2000], limit: Duration::from_secs(8) };

/// How often and how long a session is tried for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// How long the first attempt (TCP, TLS, handshake, settings) may take until another one is made beside it; each
    /// later one has twice as long as the one before, so that a service that is slow is not flooded.
    alone: Duration,
    /// The pauses before the attempts when nobody else is trying.
    pauses_ms: &'static [u64],
    /// When all is over.
    limit: Duration,
}

/// What a session is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A call begins.
    Start,
    /// A call goes on that has lost its session, or soon will.
    MidCall,
}

/// A session whose settings are confirmed.
#[derive(Debug)]
pub struct Session {
    /// Its socket.
    pub socket: Socket,
    /// When OpenAI ends it, or the configuration, if that is earlier.
    pub ends_at: Instant,
    /// Who answers the caller's turns.
    pub turns: Turns,
}

/// Why there is no session to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No answer, or none that helps.
    Unreachable,
    /// OpenAI takes no call of ours: the key, the account, the model.
    Refused,
    /// The account is used up.
    OutOfQuota,
    /// Too many requests, tokens or sessions.
    RateLimited,
    /// The settings are refused.
    SettingsRefused,
    /// Session after session is lost or spoiled.
    Failing,
}

impl Unavailable {
    /// The word for it in records, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "openai_unreachable",
            Self::Refused => "openai_refused",
            Self::OutOfQuota => "openai_quota",
            Self::RateLimited => "openai_rate_limited",
            Self::SettingsRefused => "openai_settings_refused",
            Self::Failing => "openai_failing",
        }
    }

    /// What an error of OpenAI's means for every session; `None`: nothing.
    pub fn of_code(code: &str) -> Option<Self> {
        match code {
            "insufficient_quota" | "billing_hard_limit_reached" => Some(Self::OutOfQuota),
            "invalid_api_key" | "account_deactivated" | "model_not_found" | "beta_api_shape_disabled" => {
                Some(Self::Refused)
            }
            _ => None,
        }
    }

    fn of_connect(error: &ConnectError) -> Self {
        match error {
            ConnectError::Refused { code: Some(code), .. } if Self::of_code(code).is_some() => {
                Self::of_code(code).unwrap_or(Self::Refused)
            }
            ConnectError::Refused { status: 429, .. } => Self::RateLimited,
            ConnectError::NotConfigured | ConnectError::Refused { status: 400 | 401 | 403 | 404, .. } => Self::Refused,
            ConnectError::Refused { .. } | ConnectError::Unreachable(_) => Self::Unreachable,
        }
    }

    /// Whether another attempt may do better.
    const fn may_pass(self) -> bool {
        matches!(self, Self::Unreachable | Self::RateLimited)
    }
}

/// What an agent's sessions are opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The model.
    pub model: String,
    /// The `session.update`, with [`SESSION_EVENT_ID`].
    pub update: String,
}

/// Opens sessions.
#[derive(Clone, Copy, Debug)]
pub struct Opener<'a> {
    /// `None`: there is no OpenAI.
    pub config: Option<&'a OpenAi>,
    /// With what.
    pub terms: &'a Terms,
}

impl Opener<'_> {
    /// Opens a session for one who has waited `since`, in as many attempts as the occasion is worth.
    pub async fn open(&self, occasion: Occasion, since: Instant) -> Result<Session, Unavailable> {
        let patience = match occasion {
            Occasion::Start => AT_START,
            Occasion::MidCall => IN_MID_CALL,
        };
        timeout_at(since + patience.limit, first_of(patience, || self.attempt())).await.unwrap_or_else(|_| {
            tracing::warn!(limit_ms = patience.limit.as_millis(), "OpenAI opens no session in time");
            Err(Unavailable::Unreachable)
        })
    }

    async fn attempt(&self) -> Result<Session, Unavailable> {
        let mut socket = openai::connect(self.config, &self.terms.model).await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "OpenAI does not open a session");
            Unavailable::of_connect(&error)
        })?;
        let lasts = self.config.map_or(Duration::ZERO, |config| config.session_lasts);
        let mut ends_at = Instant::now() + lasts;
        socket.send(Message::text(self.terms.update.as_str())).await.map_err(|_| Unavailable::Unreachable)?;
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            match Told::read(&text) {
                Told::Ends { at_unix_s } => ends_at = instant_of(at_unix_s).map_or(ends_at, |told| told.min(ends_at)),
                Told::Confirmed(turns) => return Ok(Session { socket, ends_at, turns }),
                Told::Refused(why) => return Err(why),
                Told::Nothing => {}
            }
        }
        Err(Unavailable::Unreachable)
    }
}

/// The first success of attempts that begin one after the other, and run beside each other if they take long.
async fn first_of<S, A>(patience: Patience, attempt: impl Fn() -> A) -> Result<S, Unavailable>
where
    A: Future<Output = Result<S, Unavailable>>,
{
    let mut pauses = patience.pauses_ms.iter().map(|ms| Duration::from_millis(*ms));
    let mut pause = pauses.next();
    let mut alone = patience.alone;
    let mut running = FuturesUnordered::new();
    let mut next = pin!(sleep(pause.unwrap_or_default()));
    loop {
        tokio::select! {
            () = &mut next, if pause.is_some() => {
                running.push(attempt());
                pause = pauses.next();
                next.as_mut().reset(Instant::now() + alone);
                alone *= 2;
            }
            Some(came) = running.next() => match came {
                Ok(session) => return Ok(session),
                Err(why) => {
                    tracing::warn!(reason = why.as_str(), "no session at OpenAI");
                    if !why.may_pass() {
                        return Err(why);
                    }
                    if running.is_empty() {
                        let Some(pause) = pause else { return Err(why) };
                        next.as_mut().reset(Instant::now() + pause);
                    }
                }
            },
        }
    }
}

/// The moment on our own clock.
fn instant_of(unix_s: u64) -> Option<Instant> {
    let left =
        std::time::UNIX_EPOCH.checked_add(Duration::from_secs(unix_s))?.duration_since(std::time::SystemTime::now());
    Some(Instant::now() + left.ok()?)
}

impl Session {
    /// For how long it lasts from `now` on, in milliseconds.
    pub fn lasts_ms(&self, now: Instant) -> Millis {
        u64::try_from(self.ends_at.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)
    }
}

/// What an event means for a session that is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Ends { at_unix_s: u64 },
    Confirmed(Turns),
    Refused(Unavailable),
    Nothing,
}

/// `session.created`, as far as it is of use.
#[derive(Deserialize)]
struct Created<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    session: Expiry,
}

#[derive(Deserialize)]
struct Expiry {
    expires_at: u64,
}

impl Told {
    fn read(text: &str) -> Self {
        if let Ok(Created { kind: "session.created", session }) = serde_json::from_str(text) {
            return Self::Ends { at_unix_s: session.expires_at };
        }
        match Event::parse(text) {
            Ok(Event::SessionUpdated { mulaw: true, turns }) => Self::Confirmed(turns),
            Ok(Event::SessionUpdated { mulaw: false, .. }) => Self::Refused(Unavailable::SettingsRefused),
            Ok(Event::Error(error)) => Self::of_error(&error),
            _ => Self::Nothing,
        }
    }

    fn of_error(error: &ErrorBody) -> Self {
        let code = error.word();
        match Unavailable::of_code(code) {
            Some(why) => Self::Refused(why),
            None if code.starts_with("rate_limit") => Self::Refused(Unavailable::RateLimited),
            None if error.event_id.as_deref() == Some(SESSION_EVENT_ID) => {
                tracing::error!(code, "OpenAI refuses an agent's settings");
                Self::Refused(Unavailable::SettingsRefused)
            }
            None => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mulaw_must_be_confirmed_both_ways() {
        let updated = |output: &str| {
            Told::read(
                &json!({"type": "session.updated", "session": {"audio": {
                    "input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": output}}}}})
                .to_string(),
            )
        };
        assert_eq!(updated("audio/pcmu"), Told::Confirmed(Turns::Server));
        assert_eq!(updated("audio/pcm"), Told::Refused(Unavailable::SettingsRefused));
    }

    #[test]
    fn an_error_is_read_by_its_code_and_by_what_it_answers() {
        let error = |code: &str, event_id: Option<&str>| {
            Told::read(&json!({"type": "error", "error": {"code": code, "event_id": event_id}}).to_string())
        };
        assert_eq!(error("insufficient_quota", None), Told::Refused(Unavailable::OutOfQuota));
        assert_eq!(error("model_not_found", None), Told::Refused(Unavailable::Refused));
        assert_eq!(error("rate_limit_exceeded", None), Told::Refused(Unavailable::RateLimited));
        assert_eq!(error("unknown_parameter", Some(SESSION_EVENT_ID)), Told::Refused(Unavailable::SettingsRefused));
        assert_eq!(error("brand_new", None), Told::Nothing);
        assert_eq!(Told::read("{}"), Told::Nothing);
    }

    #[test]
    fn a_refused_handshake_is_tried_again_only_if_it_may_pass() {
        let refused = |status, code: Option<&str>| {
            Unavailable::of_connect(&ConnectError::Refused { status, code: code.map(str::to_owned) })
        };
        for (status, code, expected, again) in [
            (401, Some("invalid_api_key"), Unavailable::Refused, false),
            (404, None, Unavailable::Refused, false),
            (429, Some("insufficient_quota"), Unavailable::OutOfQuota, false),
            (429, Some("rate_limit_exceeded"), Unavailable::RateLimited, true),
            (503, None, Unavailable::Unreachable, true),
        ] {
            assert_eq!(refused(status, code), expected);
            assert_eq!(expected.may_pass(), again, "{expected:?}");
        }
    }

    /// What attempts with these outcomes come to, in order (`None`: silence), and how many are made. Who is silent is
    /// left alone for `alone_ms`.
    async fn tried(alone_ms: u64, outcomes: &[Option<Result<u8, Unavailable>>]) -> (Result<u8, Unavailable>, usize) {
        let made = std::cell::Cell::new(0);
        let attempt = || {
            let outcome = outcomes[made.replace(made.get() + 1)];
            async move {
                match outcome {
                    Some(outcome) => outcome,
                    None => std::future::pending().await,
                }
            }
        };
        let patience = Patience { alone: Duration::from_millis(alone_ms), pauses_ms: &[0, 1, 2], ..AT_START };
        (first_of(patience, attempt).await, made.get())
    }

    const AN_HOUR: u64 = 3_600_000;

    #[tokio::test]
    async fn an_attempt_that_takes_long_gets_company() {
        assert_eq!(tried(AN_HOUR, &[Some(Ok(1))]).await, (Ok(1), 1));
        assert_eq!(tried(1, &[None, Some(Ok(2))]).await, (Ok(2), 2));
        assert_eq!(tried(1, &[None, None, Some(Ok(3))]).await, (Ok(3), 3));
    }

    /// The second attempt begins while the first is under way, which then succeeds.
    #[tokio::test]
    async fn an_attempt_that_has_company_may_still_win() {
        let (made, second) = (std::cell::Cell::new(0), tokio::sync::Notify::new());
        let attempt = || {
            let number = made.replace(made.get() + 1);
            let second = &second;
            async move {
                if number > 0 {
                    second.notify_one();
                    std::future::pending::<()>().await;
                }
                second.notified().await;
                Ok::<u8, Unavailable>(number)
            }
        };
        let patience = Patience { alone: Duration::from_millis(1), ..AT_START };
        assert_eq!((first_of(patience, attempt).await, made.get()), (Ok(0), 2));
    }

    #[tokio::test]
    async fn a_failure_that_may_pass_is_followed_by_another_attempt() {
        let (away, spent) = (Err(Unavailable::Unreachable), Err(Unavailable::OutOfQuota));
        assert_eq!(tried(AN_HOUR, &[Some(away), Some(Ok(2))]).await, (Ok(2), 2));
        assert_eq!(tried(AN_HOUR, &[Some(away); 3]).await, (away, 3));
        assert_eq!(tried(1, &[None, Some(away), Some(Ok(3))]).await, (Ok(3), 3), "the first is still trying");
        assert_eq!(tried(AN_HOUR, &[Some(spent)]).await, (spent, 1));
        assert_eq!(tried(1, &[None, Some(spent)]).await, (spent, 2));
    }
}
