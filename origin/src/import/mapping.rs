//! The table from Vapi's assistants to agents: for every field what becomes of it.
//!
//! Sources: Vapi's API reference and SDK types for the fields; OpenAI's reference of `session.update` for what a session
//! can hold. Rows with [`Verdict::Built`] are decided by `convert`, which reads the value; all others here alone.

use super::path::Node;
use super::report::Outcome;

/// What becomes of a field.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// `convert` reads it; what it cannot read is lost.
    Built,
    /// Of no consequence.
    Carried(&'static str),
    /// Near enough.
    Approximated(&'static str),
    /// Not carried over.
    Lost(&'static str),
    /// Not carried over; no loss where it is switched off.
    LostUnlessOff(&'static str),
}

/// Fields, as a pattern, and what becomes of them. The first that fits counts.
pub type Rule = (&'static str, Verdict);

use Verdict::{Approximated, Built, Carried, Lost, LostUnlessOff};

const BOOKKEEPING: Verdict = Carried("Vapi's own bookkeeping; nothing hangs on it");
const SECRET: Verdict = Lost("secrets are never copied; Tandem signs its requests with the tool's own secret");
const NO_SECRET: Verdict = Lost("secrets are never copied");
const OTHER_VOICE: Verdict = Approximated("belongs to a voice of another provider, which is replaced");
const TRANSCRIPT_ONLY: Verdict = Approximated("the transcript is made by another model, and does not steer the agent");

/// What becomes of the fields of an assistant.
pub const ASSISTANT: &[Rule] = &[
    ("id", Carried("the agent's vapiAssistantId")),
    ("orgId", BOOKKEEPING),
    ("createdAt", BOOKKEEPING),
    ("updatedAt", BOOKKEEPING),
    ("isServerUrlSecretSet", BOOKKEEPING),
    ("latestVersion", BOOKKEEPING),
    ("modelDeprecations.**", BOOKKEEPING),
    ("name", Built),
    ("metadata.**", Built),
    // The model.
    ("model.provider", Built),
    ("model.model", Built),
    ("model.messages.*.role", Built),
    ("model.messages.*.content", Built),
    ("model.messages.**", Lost("only roles and texts of messages can be carried over")),
    ("model.systemPrompt", Built),
    ("model.reasoningEffort", Built),
    ("model.temperature", Lost("realtime sessions have no temperature")),
    (
        "model.maxTokens",
        Approximated("no limit: in a session it counts audio, and would cut the agent off in a sentence"),
    ),
    ("model.fallbackModels.**", Lost("a call that loses its model is reconnected to the same one")),
    ("model.knowledgeBase.**", Lost("there is no retrieval; give the agent a tool that looks things up")),
    ("model.knowledgeBaseId", Lost("there is no retrieval; give the agent a tool that looks things up")),
    ("model.speaker.**", Lost("part of OpenAI's Live API, which is not the Realtime API")),
    ("model.reasoner.**", Lost("part of OpenAI's Live API, which is not the Realtime API")),
    ("model.skills.**", Lost("part of OpenAI's Live API, which is not the Realtime API")),
    ("model.toolStrictCompatibilityMode", Lost("realtime sessions have no such field")),
    ("model.promptCacheRetention", Lost("realtime sessions have no such field")),
    ("model.promptCacheKey", Lost("realtime sessions have no such field")),
    ("model.serviceTier", Lost("realtime sessions have no such field")),
    ("model.numFastTurns", LostUnlessOff("realtime sessions have no such field")),
    ("model.emotionRecognitionEnabled", LostUnlessOff("the model hears the caller itself")),
    ("model.headers.**", NO_SECRET),
    ("model.url", Lost("calls run on OpenAI's models only")),
    ("model.tools.**", Built),
    ("model.toolIds.*", Built),
    ("model.toolRefs.*.toolId", Built),
    ("model.toolRefs.*.version", Approximated("the tool is taken as it is now")),
    ("model.functions.**", Built),
    // The voice.
    ("voice", Built),
    ("voice.provider", Built),
    ("voice.voiceId", Built),
    ("voice.speed", Built),
    ("voice.instructions", Lost("a session has one text of instructions; say it there")),
    ("voice.pronunciationDictionaryLocators.**", Lost("OpenAI's voices take no pronunciation dictionary")),
    ("voice.pronunciationDictionary.**", Lost("OpenAI's voices take no pronunciation dictionary")),
    ("voice.fallbackPlan.**", Lost("a session has one voice")),
    ("voice.server.**", Lost("a voice of one's own cannot be brought along")),
    ("voice.**", OTHER_VOICE),
    // The ear.
    ("transcriber", TRANSCRIPT_ONLY),
    ("transcriber.language", Built),
    ("transcriber.languages.**", TRANSCRIPT_ONLY),
    ("transcriber.keywords.**", Built),
    ("transcriber.keyterm.**", Built),
    ("transcriber.keytermsPrompt.**", Built),
    ("transcriber.redaction.**", Lost("transcripts are not redacted")),
    ("transcriber.server.**", Lost("a transcriber of one's own cannot be brought along")),
    ("transcriber.**", TRANSCRIPT_ONLY),
    ("backgroundSpeechDenoisingPlan.smartDenoisingPlan.enabled", Built),
    (
        "backgroundSpeechDenoisingPlan.fourierDenoisingPlan.**",
        LostUnlessOff("OpenAI's noise reduction has no such stage"),
    ),
    ("backgroundDenoisingEnabled", Built),
    // Taking turns.
    ("startSpeakingPlan.waitSeconds", Built),
    ("startSpeakingPlan.transcriptionEndpointingPlan.onPunctuationSeconds", Built),
    (
        "startSpeakingPlan.transcriptionEndpointingPlan.**",
        Approximated("turns end by silence alone: OpenAI's turn detection does not read the words"),
    ),
    ("startSpeakingPlan.smartEndpointingEnabled", Built),
    ("startSpeakingPlan.smartEndpointingPlan.provider", Built),
    ("startSpeakingPlan.smartEndpointingPlan.server.**", Lost("the end of a turn cannot be asked of a server")),
    ("startSpeakingPlan.smartEndpointingPlan.**", Approximated("OpenAI's semantic turn detection waits by itself")),
    ("startSpeakingPlan.customEndpointingRules.**", LostUnlessOff("OpenAI's turn detection takes no rules")),
    ("responseDelaySeconds", Built),
    ("stopSpeakingPlan.numWords", Built),
    ("numWordsToInterruptAssistant", Built),
    ("stopSpeakingPlan.voiceSeconds", Approximated("OpenAI's voice detection decides how much sound is speech")),
    ("stopSpeakingPlan.backoffSeconds", Approximated("the agent goes on when the caller's turn has ended")),
    ("stopSpeakingPlan.acknowledgementPhrases.**", LostUnlessOff("sounds interrupt, not words")),
    ("stopSpeakingPlan.interruptionPhrases.**", LostUnlessOff("sounds interrupt, not words")),
    // Beginning and end.
    ("firstMessage", Built),
    ("firstMessageMode", Built),
    ("firstMessageInterruptionsEnabled", Built),
    ("endCallMessage", Built),
    ("endCallPhrases.*", Built),
    ("endCallPhrases", Carried("none")),
    ("maxDurationSeconds", Built),
    ("silenceTimeoutSeconds", Built),
    ("messagePlan.idleMessages.*", Built),
    ("messagePlan.idleTimeoutSeconds", Built),
    ("messagePlan.idleMessageMaxSpokenCount", Built),
    ("messagePlan.**", Lost("only idle messages can be carried over")),
    ("hooks.**", Built),
    ("keypadInputPlan.**", Built),
    ("backgroundSound", Built),
    ("voicemailDetection.**", LostUnlessOff("answering machines are not recognised; incoming calls have none")),
    ("voicemailMessage", Lost("answering machines are not recognised; incoming calls have none")),
    // Around the call.
    ("server.url", Built),
    ("serverUrl", Built),
    ("server.secret", SECRET),
    ("serverUrlSecret", SECRET),
    ("server.headers.**", SECRET),
    ("server.credentialId", SECRET),
    ("server.timeoutSeconds", Built),
    ("server.backoffPlan.**", Lost("tools are run once and never repeated")),
    ("server.staticIpAddressesEnabled", LostUnlessOff("requests come from Tandem's own addresses")),
    ("server.encryptedPaths.**", LostUnlessOff("requests are encrypted on the way only")),
    ("serverMessages.**", Lost("for calls on OpenAI Realtime no messages but tool calls are sent to a server")),
    ("clientMessages.**", Lost("only web clients receive them, and Tandem's calls are phone calls")),
    ("modelOutputInMessagesEnabled", LostUnlessOff("the transcript is of what was said")),
    ("analysisPlan.**", LostUnlessOff("calls are not analysed afterwards")),
    ("artifactPlan.recordingEnabled", Built),
    ("recordingEnabled", Built),
    ("artifactPlan.transcriptPlan.enabled", Carried("every call has a transcript")),
    ("artifactPlan.fullMessageHistoryEnabled", Carried("every call has a transcript")),
    ("artifactPlan.**", LostUnlessOff("the transcript and the record of a call are what is kept")),
    ("monitorPlan.**", LostUnlessOff("calls cannot be heard or steered while they run")),
    ("compliancePlan.**", LostUnlessOff("a matter of contracts and data paths: decide it before switching")),
    ("hipaaEnabled", LostUnlessOff("a matter of contracts and data paths: decide it before switching")),
    ("observabilityPlan.**", LostUnlessOff("calls are not traced to other services")),
    ("transportConfigurations.**", Lost("Twilio's settings of a call are Twilio's defaults")),
    ("credentials.**", NO_SECRET),
    ("credentialIds.**", Lost("credentials cannot be read back from Vapi")),
    // Of old assistants.
    ("forwardingPhoneNumber", Built),
    ("forwardingPhoneNumbers.**", Built),
    ("endCallFunctionEnabled", Built),
    ("dialKeypadFunctionEnabled", Built),
];

/// What becomes of the fields of a tool, from the tool's own place on.
pub const TOOL: &[Rule] = &[
    ("id", BOOKKEEPING),
    ("orgId", BOOKKEEPING),
    ("createdAt", BOOKKEEPING),
    ("updatedAt", BOOKKEEPING),
    ("isServerUrlSecretSet", BOOKKEEPING),
    ("latestVersion", BOOKKEEPING),
    ("type", Built),
    ("function.name", Built),
    ("function.description", Built),
    ("function.parameters.**", Built),
    ("function.strict", LostUnlessOff("realtime sessions have no strict functions")),
    ("async", Built),
    ("parameters.**", Built),
    ("server.url", Built),
    ("server.timeoutSeconds", Built),
    ("server.secret", SECRET),
    ("server.headers.**", SECRET),
    ("server.credentialId", SECRET),
    ("server.backoffPlan.**", Lost("tools are run once and never repeated")),
    ("server.staticIpAddressesEnabled", LostUnlessOff("requests come from Tandem's own addresses")),
    ("server.encryptedPaths.**", LostUnlessOff("requests are encrypted on the way only")),
    ("messages.*.conditions.**", LostUnlessOff("a message is said in every case")),
    ("messages.*.contents.**", LostUnlessOff("a message has one text, for all languages")),
    ("messages.*.blocking", LostUnlessOff("a tool does not wait for the words to be said")),
    ("messages.*.type", Built),
    ("messages.*.content", Built),
    ("messages.*.role", Built),
    ("messages.*.timingMilliseconds", Built),
    ("messages.*.endCallAfterSpokenEnabled", Built),
    ("messages", Carried("none")),
    ("rejectionPlan.**", LostUnlessOff("a tool that the model calls is run")),
    ("variableExtractionPlan.**", LostUnlessOff("variables are not taken out of results")),
    ("destinations.*.type", Built),
    ("destinations.*.number", Built),
    ("destinations.*.sipUri", Built),
    ("destinations.*.extension", Built),
    ("destinations.*.callerId", Built),
    ("destinations.*.description", Built),
    ("destinations.*.message", Built),
    ("destinations.*.name", Approximated("a destination is named by its number and description")),
    ("destinations.*.numberE164CheckEnabled", Built),
    ("destinations.*.transferPlan.mode", Built),
    ("destinations.*.transferPlan.**", Lost("callers are handed over without a word to the other side")),
    ("destinations.**", Lost("only numbers and SIP addresses can be dialled")),
    ("sipInfoDtmfEnabled", LostUnlessOff("keys are pressed as tones")),
];

/// Kinds of tools that have no counterpart, and why.
pub const LOST_TOOLS: &[(&str, &str)] = &[
    (
        "apiRequest",
        "Vapi calls such an API directly; Tandem calls servers that take Vapi's tool-calls message: put one before the API",
    ),
    ("mcp", "MCP servers cannot be connected"),
    ("handoff", "an agent cannot become another one in a call"),
    ("query", "there is no retrieval; give the agent a tool that looks things up"),
    ("sms", "no text messages are sent; give the agent a tool that does"),
    ("voicemail", "answering machines are not recognised; incoming calls have none"),
    ("code", "Vapi runs this code itself; give it a server"),
    ("sipRequest", "there is no SIP dialogue to send a request in"),
    ("output", "there is nothing to write structured output to"),
    ("bash", "such tools are not for phone calls"),
    ("computer", "such tools are not for phone calls"),
    ("textEditor", "such tools are not for phone calls"),
    ("slack.message.send", "Vapi holds the account; give the agent a tool that does this"),
    ("google.calendar.event.create", "Vapi holds the account; give the agent a tool that does this"),
    ("google.calendar.availability.check", "Vapi holds the account; give the agent a tool that does this"),
    ("google.sheets.row.append", "Vapi holds the account; give the agent a tool that does this"),
    ("gohighlevel.calendar.availability.check", "Vapi holds the account; give the agent a tool that does this"),
    ("gohighlevel.calendar.event.create", "Vapi holds the account; give the agent a tool that does this"),
    ("gohighlevel.contact.create", "Vapi holds the account; give the agent a tool that does this"),
    ("gohighlevel.contact.get", "Vapi holds the account; give the agent a tool that does this"),
    ("ghl", "Vapi holds the account; give the agent a tool that does this"),
    ("make", "Vapi holds the account; give the agent a tool that does this"),
];

/// OpenAI's realtime models that Vapi hosts, and ours. The others of the family shut down on 2027-01-20.
pub const MODELS: &[(&str, &str)] = &[
    ("gpt-realtime-2.1", "gpt-realtime-2.1"),
    ("gpt-realtime-2.1-mini", "gpt-realtime-2.1-mini"),
    ("gpt-realtime-2", "gpt-realtime-2"),
    ("gpt-realtime", "gpt-realtime-2.1"),
    ("gpt-realtime-2025-08-28", "gpt-realtime-2.1"),
    ("gpt-realtime-mini", "gpt-realtime-2.1-mini"),
    ("gpt-realtime-mini-2025-12-15", "gpt-realtime-2.1-mini"),
    ("gpt-4o-realtime-preview-2024-10-01", "gpt-realtime-2.1"),
    ("gpt-4o-realtime-preview-2024-12-17", "gpt-realtime-2.1"),
    ("gpt-4o-mini-realtime-preview-2024-12-17", "gpt-realtime-2.1-mini"),
];

/// Voices of realtime sessions. Vapi's `fable`, `onyx` and `nova`, and those of the Live API, are not among them.
pub use crate::store::agents::realtime::VOICES;
/// For voices that have no counterpart and no substitute.
pub const DEFAULT_VOICE: &str = "marin";
/// OpenAI's transcription model that takes keywords, and does not shut down on 2027-02-26.
pub const TRANSCRIPTION_MODEL: &str = "gpt-transcribe";

/// What Vapi does where nothing is set.
pub mod default {
    /// `maxDurationSeconds`.
    pub const MAX_DURATION_SECONDS: u32 = 600;
    /// `silenceTimeoutSeconds`; no longer in Vapi's types, but still in force.
    pub const SILENCE_TIMEOUT_SECONDS: u32 = 30;
    /// `backgroundSound`, in phone calls.
    pub const BACKGROUND_SOUND: &str = "office";
    /// `startSpeakingPlan.waitSeconds`.
    pub const WAIT_SECONDS: f64 = 0.4;
    /// `startSpeakingPlan.transcriptionEndpointingPlan.onPunctuationSeconds`.
    pub const ON_PUNCTUATION_SECONDS: f64 = 0.1;
    /// `server.timeoutSeconds`.
    pub const SERVER_TIMEOUT_SECONDS: f64 = 20.0;
    /// `keypadInputPlan.timeoutSeconds`.
    pub const KEYPAD_TIMEOUT_SECONDS: f64 = 2.0;
    /// The hook `customer.speech.timeout`: `timeoutSeconds`.
    pub const IDLE_SECONDS: f64 = 7.5;
    /// The same: `triggerMaxCount`.
    pub const IDLE_TIMES: u32 = 3;
}

/// Settings that an import makes and calls may or may not heed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like the settings; `name` says where each is")]
pub enum Setting {
    Background,
    BackgroundSound,
    DtmfTool,
    EndCallMessage,
    EndCallPhrases,
    EndCallTool,
    FirstMessage,
    FirstMessageInterruptible,
    Idle,
    Keypad,
    Keywords,
    MaxDuration,
    Opening,
    ReasoningEffort,
    Recording,
    SilenceTimeout,
    StaticArguments,
    Templates,
    ToolMessages,
    TransferTool,
}

/// Settings that calls on OpenAI Realtime heed. Whoever makes the bridge heed another adds it here, and reports tell it
/// from the next import on.
pub const ACTED_ON: &[Setting] = &[
    Setting::Background,
    Setting::DtmfTool,
    Setting::EndCallMessage,
    Setting::EndCallPhrases,
    Setting::EndCallTool,
    Setting::FirstMessage,
    Setting::FirstMessageInterruptible,
    Setting::Idle,
    Setting::Keypad,
    Setting::Keywords,
    Setting::MaxDuration,
    Setting::Opening,
    Setting::ReasoningEffort,
    Setting::Recording,
    Setting::SilenceTimeout,
    Setting::StaticArguments,
    Setting::TransferTool,
];

impl Setting {
    /// Where it is.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Background => "the tool's settings.background",
            Self::BackgroundSound => "realtime.call.backgroundSound",
            Self::DtmfTool => "the tool send_dtmf",
            Self::EndCallMessage => "realtime.call.endCallMessage",
            Self::EndCallPhrases => "realtime.call.endCallPhrases",
            Self::EndCallTool => "the tool end_call",
            Self::FirstMessage => "realtime.call.firstMessage",
            Self::FirstMessageInterruptible => "realtime.call.firstMessageInterruptible",
            Self::Idle => "realtime.call.idle",
            Self::Keypad => "realtime.call.keypad",
            Self::Keywords => "realtime.transcription.keywords",
            Self::MaxDuration => "realtime.call.maxDurationSeconds",
            Self::Opening => "realtime.call.opening",
            Self::ReasoningEffort => "realtime.call.reasoningEffort",
            Self::Recording => "realtime.call.recording",
            Self::SilenceTimeout => "realtime.call.silenceTimeoutSeconds",
            Self::StaticArguments => "the tool's settings.staticArguments",
            Self::Templates => "Liquid in the text",
            Self::ToolMessages => "the tool's settings.messages",
            Self::TransferTool => "the tool transfer_call",
        }
    }
}

/// What the rules say of a field that nothing was noted of. `skip` steps lead to the rules' own place.
pub fn outcome(rules: &[Rule], field: &Node<'_>, skip: usize) -> Outcome {
    let Some((_, verdict)) = rules.iter().find(|(pattern, _)| field.path.matches(skip, pattern)) else {
        return Outcome::lost("Tandem does not know this field");
    };
    match verdict {
        Verdict::Built if is_empty(field) => Outcome::carried_as("empty"),
        Verdict::Built => Outcome::lost("Tandem cannot use this value here"),
        Verdict::Carried(note) => Outcome::carried_as(*note),
        Verdict::Approximated(note) => Outcome::approximated(*note),
        Verdict::LostUnlessOff(_) if is_empty(field) || is_off(field) => Outcome::carried_as("off"),
        Verdict::Lost(note) | Verdict::LostUnlessOff(note) => Outcome::lost(*note),
    }
}

fn is_empty(field: &Node<'_>) -> bool {
    field.value.as_array().is_some_and(Vec::is_empty)
        || field.value.as_object().is_some_and(serde_json::Map::is_empty)
        || field.text() == Some("")
}

fn is_off(field: &Node<'_>) -> bool {
    field.flag() == Some(false) || field.text() == Some("off") || field.number() == Some(0.0)
}
