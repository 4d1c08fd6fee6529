//! Which elements and attributes TwiML has, as in the types of npm `twilio` 6.2.0. Anything else is a
//! 12200 warning at Twilio, and ignored.

/// Attributes of every verb inside `<Response>`; `None` for what is not a verb. A verb that the
/// simulator does not run has its attributes unchecked: `Some(&[])` with [`is_simulated`] false.
pub(crate) fn verb(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "Connect" => &["action", "method"],
        "Dial" => &[
            "action",
            "answerOnBridge",
            "callerId",
            "callReason",
            "events",
            "hangupOnStar",
            "method",
            "passports",
            "record",
            "recordingStatusCallback",
            "recordingStatusCallbackEvent",
            "recordingStatusCallbackMethod",
            "recordingTrack",
            "referMethod",
            "referUrl",
            "ringTone",
            "sequential",
            "timeLimit",
            "timeout",
            "trim",
        ],
        "Pause" => &["length"],
        "Play" => &["digits", "loop"],
        "Redirect" => &["method"],
        "Reject" => &["reason"],
        "Say" => &["language", "loop", "voice"],
        "Hangup" | "Echo" | "Enqueue" | "Gather" | "Leave" | "Pay" | "Prompt" | "Queue" | "Record" | "Refer"
        | "Sms" | "Start" | "Stop" => &[],
        _ => return None,
    })
}

/// Whether the simulator runs this verb.
pub(crate) fn is_simulated(verb: &str) -> bool {
    matches!(verb, "Connect" | "Dial" | "Pause" | "Play" | "Redirect" | "Reject" | "Say" | "Hangup")
}

/// Attributes of a noun under a verb (or of `<Parameter>` under `<Stream>`); `None` if it does not belong there.
pub(crate) fn noun(parent: &str, name: &str) -> Option<&'static [&'static str]> {
    Some(match (parent, name) {
        ("Connect", "Stream") => &[
            "audioFormat",
            "connectorName",
            "name",
            "sampleRate",
            "statusCallback",
            "statusCallbackMethod",
            "track",
            "url",
        ],
        ("Stream" | "Hangup", "Parameter") => &["name", "value"],
        ("Dial", "Number") => &[
            "amdStatusCallback",
            "amdStatusCallbackMethod",
            "byoc",
            "machineDetection",
            "machineDetectionSilenceTimeout",
            "machineDetectionSpeechEndThreshold",
            "machineDetectionSpeechThreshold",
            "machineDetectionTimeout",
            "method",
            "sendDigits",
            "statusCallback",
            "statusCallbackEvent",
            "statusCallbackMethod",
            "url",
        ],
        ("Dial", "Sip") => &[
            "amdStatusCallback",
            "amdStatusCallbackMethod",
            "machineDetection",
            "machineDetectionSilenceTimeout",
            "machineDetectionSpeechEndThreshold",
            "machineDetectionSpeechThreshold",
            "machineDetectionTimeout",
            "method",
            "password",
            "statusCallback",
            "statusCallbackEvent",
            "statusCallbackMethod",
            "url",
            "username",
        ],
        _ => return None,
    })
}

/// Nouns that exist but are not simulated.
pub(crate) fn is_unsimulated_noun(parent: &str, name: &str) -> bool {
    match parent {
        "Connect" => matches!(
            name,
            "AiSession" | "Assistant" | "Autopilot" | "Conversation" | "ConversationRelay" | "Room" | "VirtualAgent"
        ),
        "Dial" => matches!(name, "Application" | "Client" | "Conference" | "Queue" | "Sim" | "WhatsApp"),
        _ => false,
    }
}
