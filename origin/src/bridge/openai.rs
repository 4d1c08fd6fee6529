//! Events of OpenAI's Realtime API over WebSocket, general availability shapes.
//!
//! Only what the bridge acts on is read; unknown types are normal. Source: OpenAI's API reference, "Realtime client
//! events" and "Realtime server events".

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::playback::Part;
use super::responses::Ask;
use super::scan::{Delta, Deltas};
use super::wire::{Audio, Text, silence};

/// What OpenAI says.
#[derive(Debug)]
pub enum Event<'a> {
    /// The session's settings, all of them, after an accepted `session.update`.
    SessionUpdated {
        /// Whether audio is mu-law in both directions.
        mulaw: bool,
        /// Who answers the caller's turns.
        turns: Turns,
    },
    /// The caller began to speak.
    SpeechStarted,
    /// The caller stopped.
    SpeechStopped,
    /// The caller's turn is closed and has become an item.
    Committed(ItemId<'a>),
    /// What the caller said, from a separate model that may be late, and what that model used.
    CallerTranscript(ItemId<'a>, Text<'a>, Option<&'a RawValue>),
    /// A response has begun.
    ResponseCreated(ResponseCreated),
    /// A piece of the agent's audio.
    Audio {
        /// The response it belongs to.
        response_id: Text<'a>,
        /// The item's part it belongs to.
        part: Cow<'a, Part>,
        /// mu-law.
        audio: Audio<'a>,
    },
    /// All audio of an item of this response is generated.
    AudioDone(Text<'a>),
    /// A piece of what the agent says; it runs ahead of the audio.
    TranscriptDelta(ItemId<'a>, Text<'a>),
    /// All that the agent says in an item.
    TranscriptDone(ItemId<'a>, Text<'a>),
    /// The model wants a tool to run; the arguments are complete.
    FunctionCall(FunctionCall),
    /// A tool's output stands in the conversation: responses from now on know it.
    OutputAdded,
    /// The server has run a tool of an MCP server, or failed to. It does not go on by itself.
    McpCallEnded,
    /// How much of the account's limits is left.
    RateLimits(Vec<RateLimit>),
    /// A response is over, whatever the outcome.
    ResponseDone(ResponseDone),
    /// Something that we sent was refused, or the session is ending.
    Error(ErrorBody),
    /// Anything that the bridge does not act on.
    Other,
}

/// Who answers the caller's turns and stops the agent when the caller speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turns {
    /// OpenAI's turn detection does both.
    #[default]
    Server,
    /// It only tells of them.
    Ours,
}

/// One of the account's limits.
#[derive(Debug, Deserialize)]
pub struct RateLimit {
    /// What is left of it.
    pub remaining: Option<f64>,
    /// Until it is whole again, in seconds.
    pub reset_seconds: Option<f64>,
}

/// The id of an item, still in the message.
pub type ItemId<'a> = Text<'a>;
/// The id of a response.
pub type ResponseId = String;

/// A response that has begun.
#[derive(Debug, Deserialize)]
pub struct ResponseCreated {
    /// The response.
    pub id: ResponseId,
    metadata: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    tandem: Option<String>,
}

impl ResponseCreated {
    /// The id of our event that asked for it; `None`: the server made it.
    pub fn tag(&self) -> Option<&str> {
        self.metadata.as_ref()?.tandem.as_deref()
    }
}

/// A function call that the model has finished writing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FunctionCall {
    /// The item.
    #[serde(rename = "id")]
    pub item_id: String,
    /// Unique in the session; the output names it.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// JSON text, as the model wrote it.
    pub arguments: String,
}

/// How a response ended.
#[derive(Debug, Deserialize)]
pub struct ResponseDone {
    /// The response.
    pub id: ResponseId,
    /// `completed`, `cancelled`, `failed` or `incomplete`.
    pub status: String,
    /// Why, unless completed. A failure is told here and nowhere else.
    pub status_details: Option<StatusDetails>,
    /// Tokens, by kind.
    pub usage: Option<Value>,
}

/// Why a response is not completed.
#[derive(Debug, Default, Deserialize)]
pub struct StatusDetails {
    /// `turn_detected`, `client_cancelled`, `max_output_tokens`, `content_filter`.
    pub reason: Option<String>,
    /// The fault, of a failed response.
    pub error: Option<ErrorBody>,
}

/// A fault in OpenAI's words.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ErrorBody {
    /// A stable word for a class of faults.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// A stable word.
    pub code: Option<String>,
    /// A sentence. It may quote what was sent, so it does not belong into logs at `info`.
    #[serde(default)]
    pub message: String,
    /// The client event that was refused.
    pub event_id: Option<String>,
}

impl ErrorBody {
    /// The word by which it is known: its code, or its class where it has none.
    pub fn word(&self) -> &str {
        self.code.as_deref().or(self.kind.as_deref()).unwrap_or("unknown")
    }
}

/// One pass over the message, with nothing copied that is not needed.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    response_id: Option<Text<'a>>,
    #[serde(borrow)]
    item_id: Option<Text<'a>>,
    content_index: Option<u32>,
    #[serde(borrow)]
    delta: Option<Text<'a>>,
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    rate_limits: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    status: Option<String>,
}

#[derive(Deserialize)]
struct SessionBody {
    audio: SessionAudio,
}

#[derive(Deserialize)]
struct SessionAudio {
    input: SessionDirection,
    output: SessionDirection,
}

#[derive(Deserialize)]
struct SessionDirection {
    format: Format,
    turn_detection: Option<TurnSwitches>,
}

#[derive(Deserialize)]
struct TurnSwitches {
    create_response: Option<bool>,
    interrupt_response: Option<bool>,
}

impl SessionDirection {
    fn turns(&self) -> Turns {
        match &self.turn_detection {
            Some(switches) if [switches.create_response, switches.interrupt_response].contains(&Some(false)) => {
                Turns::Ours
            }
            _ => Turns::Server,
        }
    }
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
}

/// Reads the events of a session in the order in which they come.
#[derive(Debug, Default)]
pub struct Reader {
    deltas: Deltas,
    /// Of the last audio.
    part: Part,
}

impl Reader {
    /// Reads one text message.
    pub fn read<'a>(&'a mut self, message: &'a str) -> Result<Event<'a>, serde_json::Error> {
        let Some(Delta { response_id, item_id, content_index, audio }) = self.deltas.read(message) else {
            return Event::parse(message);
        };
        if self.part.item_id != item_id || self.part.content_index != content_index {
            self.part = Part { item_id: item_id.to_owned(), content_index };
        }
        Ok(Event::Audio { response_id: response_id.into(), part: Cow::Borrowed(&self.part), audio })
    }
}

impl<'a> Event<'a> {
    /// Reads one text message.
    pub fn parse(message: &'a str) -> Result<Self, serde_json::Error> {
        let frame: Frame<'a> = serde_json::from_str(message)?;
        let Frame { response_id, item_id, content_index, delta, transcript, .. } = frame;
        let event = match frame.kind.as_str() {
            "response.output_audio.delta" => match (response_id, item_id, delta.and_then(Text::borrowed)) {
                (Some(response_id), Some(item), Some(delta)) => Audio::new(delta).map(|audio| {
                    let part = Part { item_id: item.as_str().to_owned(), content_index: content_index.unwrap_or(0) };
                    Self::Audio { response_id, part: Cow::Owned(part), audio }
                }),
                _ => None,
            },
            "session.updated" => {
                let SessionAudio { input, output } = read::<SessionBody>(frame.session)?.audio;
                let mulaw = [&input, &output].iter().all(|direction| direction.format.kind == "audio/pcmu");
                Some(Self::SessionUpdated { mulaw, turns: input.turns() })
            }
            "input_audio_buffer.speech_started" => Some(Self::SpeechStarted),
            "input_audio_buffer.speech_stopped" => Some(Self::SpeechStopped),
            "input_audio_buffer.committed" => item_id.map(Self::Committed),
            "conversation.item.input_audio_transcription.completed" => {
                item_id.zip(transcript).map(|(item, text)| Self::CallerTranscript(item, text, frame.usage))
            }
            "response.created" => Some(Self::ResponseCreated(read(frame.response)?)),
            "response.output_audio.done" => response_id.map(Self::AudioDone),
            "response.output_audio_transcript.delta" => {
                item_id.zip(delta).map(|(item, text)| Self::TranscriptDelta(item, text))
            }
            "response.output_audio_transcript.done" => {
                item_id.zip(transcript).map(|(item, text)| Self::TranscriptDone(item, text))
            }
            "conversation.item.added" => {
                let item: Item = read(frame.item)?;
                (item.kind == "function_call_output").then_some(Self::OutputAdded)
            }
            "response.output_item.done" => {
                let head: Item = read(frame.item)?;
                // A cancelled response also closes its items, with arguments that may be cut.
                if head.kind == "function_call" && head.status.as_deref() == Some("completed") {
                    Some(Self::FunctionCall(FunctionCall { item_id: head.id, ..read(frame.item)? }))
                } else {
                    None
                }
            }
            "response.mcp_call.completed" | "response.mcp_call.failed" => Some(Self::McpCallEnded),
            "rate_limits.updated" => Some(Self::RateLimits(read(frame.rate_limits)?)),
            "response.done" => Some(Self::ResponseDone(read(frame.response)?)),
            "error" => Some(Self::Error(read(frame.error)?)),
            _ => None,
        };
        Ok(event.unwrap_or(Self::Other))
    }
}

fn read<'a, T: Deserialize<'a>>(value: Option<&'a RawValue>) -> Result<T, serde_json::Error> {
    serde_json::from_str(value.map_or("null", RawValue::get))
}

/// Passes the caller's audio on.
pub fn append(audio: Audio<'_>) -> String {
    [r#"{"type":"input_audio_buffer.append","audio":""#, audio.as_str(), r#""}"#].concat()
}

/// Passes silence on in place of the caller's audio.
pub fn append_silence(bytes: u64) -> String {
    format!(r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#, silence(bytes))
}

/// Lets the model speak. The event's id comes back with the response as its tag.
pub fn create_response(event_id: &str, ask: &Ask) -> String {
    let mut response = json!({ "metadata": { "tandem": event_id } });
    // These replace the session's instructions for this one response.
    let instructions = match ask {
        Ask::Turn => None,
        Ask::Say(words) => {
            Some(format!("Say exactly these words to the caller, and nothing before or after them: {words}"))
        }
        Ask::Guide(purpose) => Some(purpose.clone()),
    };
    if let Some(instructions) = instructions {
        response["instructions"] = json!(instructions);
        response["tool_choice"] = json!("none");
    }
    json!({ "type": "response.create", "event_id": event_id, "response": response }).to_string()
}

/// Stops a response.
pub fn cancel_response(id: &str) -> String {
    json!({ "type": "response.cancel", "response_id": id }).to_string()
}

/// Makes the model forget what of an item was not heard.
pub fn truncate(part: &Part, heard_ms: u64) -> String {
    json!({
        "type": "conversation.item.truncate",
        "item_id": part.item_id,
        "content_index": part.content_index,
        "audio_end_ms": heard_ms,
    })
    .to_string()
}

/// Makes the model forget an item.
pub fn delete(item_id: &str) -> String {
    json!({ "type": "conversation.item.delete", "item_id": item_id }).to_string()
}

/// Whose words a text item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// The caller's.
    User,
    /// The agent's.
    Assistant,
    /// Ours, to steer the model.
    System,
}

/// Adds words to the conversation as text.
pub fn text_item(voice: Voice, text: &str) -> String {
    let (role, kind) = match voice {
        Voice::User => ("user", "input_text"),
        Voice::Assistant => ("assistant", "output_text"),
        Voice::System => ("system", "input_text"),
    };
    json!({
        "type": "conversation.item.create",
        "item": { "type": "message", "role": role, "content": [{ "type": kind, "text": text }] },
    })
    .to_string()
}

/// Gives the model a tool's output.
pub fn function_output(call_id: &str, output: &str) -> String {
    json!({
        "type": "conversation.item.create",
        "item": { "type": "function_call_output", "call_id": call_id, "output": output },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_delta_in_any_key_order() {
        let text = r#"{"delta":"//8A","item_id":"item_1","content_index":0,"response_id":"resp_1","output_index":0,"event_id":"e","type":"response.output_audio.delta"}"#;
        let Event::Audio { response_id, part, audio } = Event::parse(text).unwrap() else { panic!("not audio") };
        assert_eq!((response_id.as_str(), part.item_id.as_str(), audio.byte_len()), ("resp_1", "item_1", 3));
    }

    #[test]
    fn mulaw_must_be_confirmed_both_ways() {
        let updated = |output: &str| {
            format!(
                r#"{{"type":"session.updated","session":{{"audio":{{"input":{{"format":{{"type":"audio/pcmu"}}}},"output":{{"format":{output}}}}}}}}}"#
            )
        };
        let both = updated(r#"{"type":"audio/pcmu"}"#);
        assert!(matches!(Event::parse(&both), Ok(Event::SessionUpdated { mulaw: true, turns: Turns::Server })));
        let silent = r#""input":{"turn_detection":{"type":"semantic_vad","create_response":false},"#;
        let ours = both.replace(r#""input":{"#, silent);
        assert!(matches!(Event::parse(&ours), Ok(Event::SessionUpdated { mulaw: true, turns: Turns::Ours })));
        let one = updated(r#"{"type":"audio/pcm","rate":24000}"#);
        assert!(matches!(Event::parse(&one), Ok(Event::SessionUpdated { mulaw: false, .. })));
    }

    #[test]
    fn only_completed_function_calls_count() {
        let done = |status: &str| {
            format!(
                r#"{{"type":"response.output_item.done","item":{{"id":"item_1","type":"function_call","status":"{status}","call_id":"call_1","name":"f","arguments":"{{\"a\":1}}"}}}}"#
            )
        };
        let text = done("completed");
        let Event::FunctionCall(call) = Event::parse(&text).unwrap() else { panic!("not a call") };
        assert_eq!((call.call_id.as_str(), call.arguments.as_str()), ("call_1", r#"{"a":1}"#));
        assert!(matches!(Event::parse(&done("incomplete")), Ok(Event::Other)));
    }

    #[test]
    fn a_failed_response_tells_why() {
        let text = r#"{"type":"response.done","response":{"id":"resp_1","status":"failed","status_details":{"type":"failed","error":{"type":"x","code":"rate_limit_exceeded","message":"slow down"}},"usage":null}}"#;
        let Event::ResponseDone(done) = Event::parse(text).unwrap() else { panic!("not done") };
        let code = done.status_details.and_then(|details| details.error?.code);
        assert_eq!(code.as_deref(), Some("rate_limit_exceeded"));
    }

    #[test]
    fn only_outputs_among_the_new_items_count() {
        let added = |kind: &str| format!(r#"{{"type":"conversation.item.added","item":{{"id":"i","type":"{kind}"}}}}"#);
        assert!(matches!(Event::parse(&added("function_call_output")), Ok(Event::OutputAdded)));
        assert!(matches!(Event::parse(&added("message")), Ok(Event::Other)));
    }

    #[test]
    fn unknown_types_pass() {
        assert!(matches!(Event::parse(r#"{"type":"brand.new","delta":"x"}"#), Ok(Event::Other)));
        assert!(Event::parse("{}").is_err());
    }
}
