//! The calls that the events tell of: how each goes, and what must stand in its record when everything has been told.

use tests::vapi::messages::Role;
use time::OffsetDateTime;

/// What kind of call it is, and with it who tells of it and what that must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// An agent on Vapi. Twilio tells of its end too, and must not have the last word.
    Vapi,
    /// At Vapi, begun before its agent was switched: it is recorded like the first.
    InFlight,
    /// At Vapi, begun after its agent was switched: nothing of it counts, and skips are logged.
    Skipped,
    /// Bridged by us and recorded before the first event; this is Twilio's last word on it, if there is one.
    Bridged { last: Option<&'static str> },
    /// Of no agent that we know.
    Unknown,
}

/// One event of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Vapi: answered.
    InProgress,
    /// Vapi: somebody begins or ceases to speak.
    Speech { turn: u32, role: Role, status: &'static str },
    /// Vapi: what the caller said.
    Transcript { turn: u32 },
    /// Vapi: everything said so far.
    Conversation { turn: u32 },
    /// Vapi: over.
    Ended,
    /// Vapi: the report.
    Report,
    /// Twilio's status callback.
    Progress { word: &'static str, sequence: u32 },
    /// Twilio's stream status callback.
    Stream { event: &'static str },
}

impl What {
    pub(crate) fn is_vapis(self) -> bool {
        !matches!(self, Self::Progress { .. } | Self::Stream { .. })
    }
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) story: Story,
    pub(crate) sid: String,
    pub(crate) vapi_id: String,
    pub(crate) caller: String,
    pub(crate) began: OffsetDateTime,
    /// Why Vapi says it ended.
    pub(crate) reason: &'static str,
}

/// What must stand in a call's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) system: &'static str,
    pub(crate) status: &'static str,
    pub(crate) reason: Option<&'static str>,
    pub(crate) has_report: bool,
}

impl Story {
    /// Its events, in the order in which they happen.
    pub(crate) fn events(self) -> Vec<What> {
        const HANGS_UP: What = What::Progress { word: "completed", sequence: 0 };
        const ENDS: [What; 3] = [HANGS_UP, What::Ended, What::Report];
        let mut events = Vec::new();
        match self {
            Self::Vapi => {
                events.push(What::InProgress);
                for turn in 1..=2 {
                    events.extend([
                        What::Speech { turn, role: Role::User, status: "started" },
                        What::Transcript { turn },
                        What::Speech { turn, role: Role::User, status: "stopped" },
                        What::Conversation { turn },
                    ]);
                }
                events.extend(ENDS);
            }
            Self::InFlight | Self::Skipped => {
                events.extend([What::InProgress, What::Transcript { turn: 1 }]);
                events.extend(ENDS);
            }
            Self::Bridged { last } => {
                events.extend([
                    What::Progress { word: "ringing", sequence: 0 },
                    What::Progress { word: "in-progress", sequence: 1 },
                    What::Stream { event: "stream-started" },
                ]);
                if let Some(word) = last {
                    events.push(What::Stream { event: "stream-stopped" });
                    events.push(What::Progress { word, sequence: 2 });
                }
            }
            Self::Unknown => events.extend([What::InProgress, HANGS_UP, What::Ended]),
        }
        events
    }

    /// How often somebody speaks to whom the assistant answers.
    pub(crate) fn turns(self) -> u32 {
        if self == Self::Vapi { 2 } else { 1 }
    }
}

impl Call {
    /// What must stand in its record when all its events have taken effect, in whatever order. `None`: there is none.
    pub(crate) fn record(&self) -> Option<Record> {
        match self.story {
            Story::Vapi | Story::InFlight => {
                Some(Record { system: "vapi", status: "ended", reason: Some(self.reason), has_report: true })
            }
            Story::Bridged { last } => {
                let reason = last.map(|word| if word == "completed" { "caller_hung_up" } else { word });
                let status = if reason.is_some() { "ended" } else { "in-progress" };
                Some(Record { system: "openai-realtime", status, reason, has_report: false })
            }
            Story::Skipped | Story::Unknown => None,
        }
    }

    /// The states that the inbox may give an event.
    pub(crate) fn states(&self, what: What) -> &'static [&'static str] {
        match (self.story, what.is_vapis()) {
            (Story::Vapi | Story::InFlight, true) | (Story::Bridged { .. }, _) => &["applied"],
            // Twilio's may come before the first of Vapi's has made the call known.
            (Story::Vapi | Story::InFlight, false) => &["applied", "unknown"],
            (Story::Skipped, true) => &["skipped"],
            (Story::Skipped, false) | (Story::Unknown, _) => &["unknown"],
        }
    }

    /// What was said, as (role in the record, words): the greeting, then turns of caller and assistant. No two calls
    /// have a line in common.
    pub(crate) fn lines(&self, turns: u32) -> Vec<(&'static str, String)> {
        let id = &self.sid;
        let mut lines =
            vec![("assistant", format!("Lakeside Dental, good morning. Your reference is {id}. How can I help?"))];
        for turn in 1..=turns {
            lines.push(("caller", self.said(turn)));
            lines.push(("assistant", format!("That is noted as wish {turn} of {id}. Is there anything else?")));
        }
        lines
    }

    /// What the caller said in a turn.
    pub(crate) fn said(&self, turn: u32) -> String {
        format!("My reference is {}, and this is wish {turn}: an appointment on a Tuesday, if you have one.", self.sid)
    }
}
