//! The TwiML answers that edge and origin give, so that both give the same.

use super::twiml::{DialTarget, Verb, render};
use super::webhook::DialOutcome;
use crate::E164;
use crate::decision::Rejection;

/// Webhook paths, on the edge and on the origin alike.
pub mod path {
    /// An incoming call.
    pub const VOICE: &str = "/twilio/voice";
    /// What runs after a stream ended.
    pub const RESUME: &str = "/twilio/resume";
    /// Call status callbacks.
    pub const STATUS: &str = "/twilio/status";
    /// Stream status callbacks.
    pub const STREAM_STATUS: &str = "/twilio/stream-status";
    /// From the edge to the origin only: it has answered this incoming call with a stream. The body is the voice webhook's
    /// as it came; 204, and nothing depends on it.
    pub const EXPECTED: &str = "/twilio/expected";
}

/// How long a caller is kept for an origin that does not answer.
struct Patience {
    /// How often a caller is asked to wait before we give up.
    attempts: u32,
    /// The line is spoken at the first attempt and at each one so many later.
    spoken_every: u32,
    /// The pause before the next attempt, in seconds, after the line and without it.
    after_line: u32,
    without_line: u32,
}

/// Nobody has spoken with the caller yet, who may as well call again: some 10 s.
const ARRIVING: Patience = Patience { attempts: 3, spoken_every: 1, after_line: 2, without_line: 2 };
/// A conversation is worth more: at least one and a half minutes with an origin that refuses at once, twice that while it
/// waits a second for its database each time. An origin that is back is asked within little more than a second, the
/// shortest pause that Twilio knows. Twilio documents no bound on voice documents; for messages it is 50.
const IN_CONVERSATION: Patience = Patience { attempts: 90, spoken_every: 10, after_line: 0, without_line: 1 };
/// The origin is there and streams fail, which takes longer to pass.
const AFTER_FAILURE: Patience = Patience { after_line: 1, spoken_every: 1, ..IN_CONVERSATION };

impl Patience {
    fn of(path: &str) -> &'static Self {
        if path.starts_with(path::RESUME) { &IN_CONVERSATION } else { &ARRIVING }
    }
}

/// How long a fallback number rings, in seconds.
const DIAL_TIMEOUT_SECONDS: u32 = 30;

/// Answers with a media stream to the origin. `base` is the public URL, without a path, to which Twilio comes back.
pub fn bridge(media_url: &str, base: &str, token: String) -> String {
    render(&[
        Verb::ConnectStream {
            url: media_url.to_owned(),
            status_callback: format!("{base}{}", path::STREAM_STATUS),
            parameters: vec![("token", token)],
        },
        Verb::Redirect(format!("{base}{}", path::RESUME)),
    ])
}

/// Sends the call on to Vapi's inbound URL. Vapi takes it only as the first verb, while the call still rings.
pub fn redirect_to_vapi(vapi_api_url: &str) -> String {
    render(&[Verb::Redirect(format!("{}/twilio/inbound_call", vapi_api_url.trim_end_matches('/')))])
}

/// Answers a call that no agent takes.
pub fn reject(rejection: &Rejection) -> String {
    let spoken = match rejection {
        Rejection::CrossSystem { fallback_number: Some(number), .. } => return dial(number),
        Rejection::NotInService => "The number you have called is not in service. Goodbye.",
        Rejection::CrossSystem { fallback_number: None, .. } | Rejection::VapiNumber { .. } => {
            "We are sorry, this line cannot take your call right now. Please try again later. Goodbye."
        }
    };
    render(&[Verb::Say(spoken.to_owned()), Verb::Hangup])
}

/// Puts the caller through to a person, and says so.
pub fn dial(number: &E164) -> String {
    render(&[
        Verb::Say("Please hold while we connect you.".to_owned()),
        Verb::Dial {
            target: DialTarget::number(number.as_str()),
            caller_id: None,
            action: None,
            timeout_seconds: DIAL_TIMEOUT_SECONDS,
        },
        Verb::Say("We are sorry, nobody could take your call. Please try again later. Goodbye.".to_owned()),
        Verb::Hangup,
    ])
}

/// Keeps the caller while the origin cannot be reached, for longer in a call that comes back to [`path::RESUME`] than in
/// one that arrives. `attempt` counts from 1; after the last one, an apology.
pub fn hold(base: &str, path: &str, attempt: u32) -> String {
    wait(Patience::of(path), base, path, attempt)
}

/// Keeps a caller whose stream was lost more than once, before it is opened again.
pub fn hold_after_failure(base: &str, attempt: u32) -> String {
    wait(&AFTER_FAILURE, base, path::RESUME, attempt)
}

fn wait(patience: &Patience, base: &str, path: &str, attempt: u32) -> String {
    if attempt > patience.attempts {
        return apologise();
    }
    let (line, seconds) = if attempt.saturating_sub(1).is_multiple_of(patience.spoken_every) {
        (Some(Verb::Say("One moment, please.".to_owned())), patience.after_line)
    } else {
        (None, patience.without_line)
    };
    let pause = (seconds > 0).then_some(Verb::Pause(seconds));
    let next = format!("{base}{path}{}attempt={}", if path.contains('?') { '&' } else { '?' }, attempt + 1);
    let verbs: Vec<Verb> = line.into_iter().chain(pause).chain([Verb::Redirect(next)]).collect();
    render(&verbs)
}

/// Whether the caller is asked to wait once more.
pub fn may_hold(path: &str, attempt: u32) -> bool {
    attempt <= Patience::of(path).attempts
}

/// Puts the caller through to somebody; Twilio comes back with what came of it.
pub fn transfer(base: &str, step: u32, target: DialTarget, caller_id: Option<String>) -> String {
    let action = Some(format!("{base}{}", Back { step, dialled: None }.path()));
    render(&[Verb::Dial { target, caller_id, action, timeout_seconds: DIAL_TIMEOUT_SECONDS }])
}

/// Presses keys towards the other side; Twilio comes back afterwards.
pub fn press(base: &str, step: u32, keys: &str) -> String {
    let back = format!("{base}{}", Back { step, dialled: None }.path());
    render(&[Verb::PlayDigits(keys.to_owned()), Verb::Redirect(back)])
}

/// A call that comes back from a step outside of its streams. It stands in the URL, so that a request that has to wait
/// for an origin keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    /// Which of the call's steps.
    pub step: u32,
    /// How dialling ended, if the step was a transfer.
    pub dialled: Option<DialOutcome>,
}

impl Back {
    /// Reads it from a request to [`path::RESUME`]: its query, and the outcome that its form tells of.
    pub fn read(query: &str, told: Option<DialOutcome>) -> Option<Self> {
        let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let step = field("after")?.parse().ok()?;
        Some(Self { step, dialled: told.or_else(|| field("dialled").and_then(DialOutcome::parse)) })
    }

    /// Path and query of its request.
    pub fn path(self) -> String {
        let dialled = self.dialled.map_or_else(String::new, |outcome| format!("&dialled={}", outcome.as_str()));
        format!("{}?after={}{dialled}", path::RESUME, self.step)
    }
}

/// Ends a call that cannot be helped.
pub fn apologise() -> String {
    render(&[
        Verb::Say(
            "We are sorry, we cannot take your call right now. Please try again in a few minutes. Goodbye.".to_owned(),
        ),
        Verb::Hangup,
    ])
}

/// Ends the call without a word.
pub fn hang_up() -> String {
    render(&[Verb::Hangup])
}

/// The answer to a callback, and to a call that is over already.
pub fn nothing() -> String {
    render(&[])
}

/// Which attempt a request's query says this is; the first says nothing.
pub fn attempt(query: &str) -> u32 {
    query.split('&').find_map(|pair| pair.strip_prefix("attempt=")?.parse().ok()).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holding_ends_after_three_attempts() {
        let mut query = String::new();
        for expected in 2..=4 {
            let twiml = hold("https://edge.example", path::VOICE, attempt(&query));
            assert!(twiml.contains("<Pause length=\"2\"/>"));
            query = format!("attempt={expected}");
            assert!(twiml.contains(&format!("https://edge.example/twilio/voice?{query}</Redirect>")), "{twiml}");
        }
        assert_eq!(hold("https://edge.example", path::VOICE, attempt(&query)), apologise());
    }

    #[test]
    fn a_conversation_is_held_for_one_and_a_half_minutes() {
        for path in [path::RESUME, "/twilio/resume?after=2&dialled=busy"] {
            let (mut attempt, mut paused, mut spoken) = (1, 0_usize, Vec::new());
            loop {
                let twiml = hold("https://edge.example", path, attempt);
                if twiml == apologise() {
                    break;
                }
                assert!(twiml.contains(&format!("attempt={}</Redirect>", attempt + 1)), "{twiml}");
                // An origin that is back is asked at most a second later, whatever the caller hears.
                let seconds = twiml.matches("<Pause length=\"1\"/>").count();
                let lines = twiml.matches("<Say>").count();
                assert_eq!((seconds + lines, twiml.matches("<Pause").count()), (1, seconds), "{twiml}");
                paused += seconds;
                if lines > 0 {
                    spoken.push(attempt);
                }
                attempt += 1;
            }
            // Each line takes a second.
            assert!(paused + spoken.len() >= 90, "{paused} s, {spoken:?}");
            assert_eq!((spoken[..3].to_vec(), attempt), (vec![1, 11, 21], 91));
        }
    }

    #[test]
    fn what_a_call_comes_back_from_outlives_the_waiting() {
        let busy = Some(DialOutcome::Busy);
        let back = Back::read("after=3", busy).unwrap();
        assert_eq!(back, Back { step: 3, dialled: busy });
        let twiml = hold("https://edge.example", &back.path(), 1);
        let query = "after=3&dialled=busy&attempt=2";
        let escaped = query.replace('&', "&amp;");
        assert!(twiml.contains(&format!("https://edge.example/twilio/resume?{escaped}</Redirect>")), "{twiml}");
        assert_eq!((Back::read(query, None), attempt(query)), (Some(back), 2));
        for strange in ["", "after=", "after=x", "after=-1", "xafter=1"] {
            assert_eq!(Back::read(strange, busy), None, "{strange}");
        }
    }

    #[test]
    fn a_strange_attempt_counts_as_the_first() {
        for query in ["", "attempt=", "attempt=x", "attempt=0", "attempt=-1", "x=2"] {
            assert_eq!(attempt(query), 1, "{query}");
        }
        assert_eq!(attempt("a=b&attempt=2"), 2);
    }

    #[test]
    fn a_fallback_number_is_dialled() {
        let agent_id = crate::AgentId(uuid::Uuid::nil());
        let fallback_number = Some("+15550199".parse().unwrap());
        let twiml = reject(&Rejection::CrossSystem { agent_id, fallback_number });
        assert!(twiml.contains("<Number>+15550199</Number>"), "{twiml}");
        assert!(!reject(&Rejection::VapiNumber { agent_id }).contains("<Dial"));
    }
}
