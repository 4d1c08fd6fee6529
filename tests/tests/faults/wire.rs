//! An event as it goes over the wire: Twilio's forms, Vapi's JSON.

use serde_json::{Value, json};
use shared::twilio::form::Form;
use shared::twilio::webhook::delivery_id;
use shared::vapi::message::Message;
use tests::twilio::Param;
use tests::vapi::messages::{
    Role, TranscriptKind, conversation_update, end_of_call_report, speech_update, status_ended, status_update,
    transcript,
};
use tests::vapi::{CallKind, Facts, History, NumberFacts, Spoken, Turn};
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::{Duration, OffsetDateTime};

use crate::story::{Call, Story, What};

/// Who is who in the stack that the events are sent to.
#[derive(Clone, Debug)]
pub(crate) struct Parties {
    pub(crate) account_sid: String,
    /// The agent on Vapi.
    pub(crate) assistant_id: String,
    pub(crate) number: String,
    /// The number of the agent that was switched.
    pub(crate) switched_number: String,
}

/// A number that nobody has.
const STRANGE_NUMBER: &str = "+15550100999";

/// What is posted.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) path: &'static str,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Twilio's, with its idempotency token, which may be absent.
    Form(Vec<Param>, Option<String>),
    /// Vapi's.
    Json(Value),
}

impl Wire {
    /// The event `what` of `call`.
    pub(crate) fn new(parties: &Parties, call: &Call, what: What) -> Self {
        let path = match what {
            What::Progress { .. } => "/twilio/status",
            What::Stream { .. } => "/twilio/stream-status",
            _ => "/api/vapi/webhook",
        };
        Self { path, body: body(parties, call, what) }
    }

    /// The id under which it must stand in the inbox.
    pub(crate) fn delivery(&self) -> String {
        match &self.body {
            Body::Form(params, token) => {
                let form = encode(params);
                let form = Form::parse(form.as_bytes()).expect("what was encoded can be decoded");
                delivery_id(self.path, &form, token.as_deref())
            }
            Body::Json(message) => {
                Message::parse(message.to_string().as_bytes()).expect("it is a server message").delivery_id
            }
        }
    }
}

/// A form as it is posted.
pub(crate) fn encode(params: &[Param]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish()
}

/// The report's cost and its items, as they must stand in the record.
pub(crate) fn usage(parties: &Parties, call: &Call) -> Value {
    let report = message(parties, call, What::Report);
    json!({ "costUsd": report["message"]["cost"], "costs": report["message"]["costs"] })
}

fn body(parties: &Parties, call: &Call, what: What) -> Body {
    let when = at(call, what);
    let (mut params, token) = match what {
        What::Progress { word, sequence } => {
            let mut params = vec![
                ("ApiVersion", "2010-04-01".to_owned()),
                ("CallStatus", word.to_owned()),
                ("Direction", "inbound".to_owned()),
                ("From", call.caller.clone()),
                ("To", number(parties, call).to_owned()),
                ("CallbackSource", "call-progress-events".to_owned()),
                ("SequenceNumber", sequence.to_string()),
                ("Timestamp", when.format(&Rfc2822).expect("a date of this century")),
            ];
            // Blank parameters are signed as well.
            params.extend(["FromCity", "FromZip", "ToCity", "ToZip"].map(|name| (name, String::new())));
            if word == "completed" {
                params.extend([("CallDuration", "38".to_owned()), ("Duration", "1".to_owned())]);
            }
            (params, word)
        }
        What::Stream { event } => {
            let stream = format!("MZ{}", call.sid.trim_start_matches("CA"));
            let params = vec![
                ("StreamSid", stream.clone()),
                ("StreamName", stream),
                ("StreamEvent", event.to_owned()),
                ("Timestamp", when.format(&Rfc3339).expect("a date of this century")),
            ];
            (params, event)
        }
        _ => return Body::Json(message(parties, call, what)),
    };
    params.extend([("AccountSid", parties.account_sid.clone()), ("CallSid", call.sid.clone())]);
    // The token may be absent, and then the parameters must do.
    let has_token = call.sid.ends_with(['0', '2', '4', '6', '8', 'a', 'c', 'e']);
    let token = has_token.then(|| format!("{}-{token}", call.vapi_id));
    Body::Form(params.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), token)
}

fn message(parties: &Parties, call: &Call, what: What) -> Value {
    let (facts, when) = (facts(parties, call), at(call, what));
    match what {
        What::InProgress => status_update(&facts, when, "in-progress"),
        What::Speech { turn, role, status } => speech_update(&facts, when, role, status, turn),
        What::Transcript { turn } => transcript(&facts, when, Role::User, TranscriptKind::FinalOnly, &call.said(turn)),
        What::Conversation { turn } => conversation_update(&facts, when, &history(call, turn)),
        What::Ended => status_ended(&facts, when, &history(call, call.story.turns()), call.reason),
        What::Report => {
            end_of_call_report(&facts, when, &history(call, call.story.turns()), at(call, What::Ended), call.reason)
        }
        What::Progress { .. } | What::Stream { .. } => Value::Null,
    }
}

/// When it happened.
fn at(call: &Call, what: What) -> OffsetDateTime {
    let ms = match what {
        What::Progress { word: "ringing", .. } => 0,
        What::InProgress | What::Progress { word: "in-progress", .. } => 2_000,
        What::Stream { event: "stream-started" } => 2_500,
        What::Speech { turn, status: "started", .. } => i64::from(turn) * 10_000,
        What::Transcript { turn } => i64::from(turn) * 10_000 + 3_200,
        What::Speech { turn, .. } => i64::from(turn) * 10_000 + 3_300,
        What::Conversation { turn } => i64::from(turn) * 10_000 + 7_000,
        What::Stream { .. } => 39_900,
        What::Ended | What::Progress { .. } => 40_000,
        What::Report => 45_000,
    };
    call.began + Duration::milliseconds(ms)
}

fn number<'a>(parties: &'a Parties, call: &Call) -> &'a str {
    match call.story {
        Story::Vapi => &parties.number,
        Story::InFlight | Story::Skipped | Story::Bridged { .. } => &parties.switched_number,
        Story::Unknown => STRANGE_NUMBER,
    }
}

fn facts(parties: &Parties, call: &Call) -> Facts {
    let assistant_id = match call.story {
        Story::Vapi => Some(parties.assistant_id.clone()),
        Story::Unknown => Some("00000000-0000-4000-8000-000000000000".to_owned()),
        // A transient assistant has no id: the number says whose call it is, and only the origin knows that.
        Story::InFlight | Story::Skipped | Story::Bridged { .. } => None,
    };
    let mut assistant = json!({ "name": "Reception", "firstMessage": "Lakeside Dental, good morning." });
    if let Some(id) = &assistant_id {
        assistant["id"] = id.as_str().into();
    }
    Facts {
        name: None,
        call_id: call.vapi_id.clone(),
        created_at: call.began,
        kind: CallKind::Inbound,
        assistant_id,
        assistant: Some(assistant),
        number: Some(NumberFacts {
            id: "3f1c1b9e-6a0e-4a39-9a57-5ff1b7a0c001".to_owned(),
            number: number(parties, call).to_owned(),
            account_sid: parties.account_sid.clone(),
        }),
        customer: Some(call.caller.clone()),
        call_sid: Some(call.sid.clone()),
    }
}

fn history(call: &Call, turns: u32) -> History {
    let instructions = "You are the receptionist of Lakeside Dental, a dental practice. Keep every turn short.";
    let mut history = History::new(call.began, Some(instructions.to_owned()));
    let mut from = call.began + Duration::seconds(3);
    for (role, text) in call.lines(turns) {
        let spoken = Spoken { text, from, until: from + Duration::milliseconds(2_400) };
        history.push(if role == "caller" { Turn::User(spoken) } else { Turn::Bot(spoken) });
        from += Duration::seconds(5);
    }
    history
}
