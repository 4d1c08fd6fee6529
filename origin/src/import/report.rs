//! The report of an import: what became of every field. It names fields and holds none of their values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::liquid;
use super::mapping::{self, Rule, Setting};
use super::path::{Node, Path};

/// What became of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Not carried over.
    Lost,
    /// Something near to it was carried over.
    Approximated,
    /// Carried over, but calls on OpenAI Realtime do not heed it yet.
    CarriedInactive,
    /// Carried over, or of no consequence.
    Carried,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lost => "lost",
            Self::Approximated => "approximated",
            Self::CarriedInactive => "carried, inactive",
            Self::Carried => "carried",
        })
    }
}

/// What became of a field, how or why, and whether a person must decide that it is well so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    status: Status,
    note: Cow<'static, str>,
    needs_decision: bool,
}

impl Outcome {
    /// Carried over as it is.
    pub const fn carried() -> Self {
        Self { status: Status::Carried, note: Cow::Borrowed(""), needs_decision: false }
    }

    /// Carried over, with something to say about it.
    pub fn carried_as(note: impl Into<Cow<'static, str>>) -> Self {
        Self { note: note.into(), ..Self::carried() }
    }

    /// Carried over into a setting; whether calls heed it is [`mapping::ACTED_ON`]'s to say.
    pub fn setting(setting: Setting) -> Self {
        if mapping::ACTED_ON.contains(&setting) {
            return Self::carried();
        }
        let note = match setting {
            Setting::Templates => "its Liquid is kept and not rendered yet".to_owned(),
            _ => format!("stored as {}; calls on OpenAI Realtime do not heed it yet", setting.name()),
        };
        Self { status: Status::CarriedInactive, note: note.into(), needs_decision: true }
    }

    /// Near enough that nobody need choose.
    pub fn approximated(note: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Approximated, note: note.into(), needs_decision: false }
    }

    /// Near, but a person must say whether near enough.
    pub fn choice(note: impl Into<Cow<'static, str>>) -> Self {
        Self { needs_decision: true, ..Self::approximated(note) }
    }

    /// Not carried over.
    pub fn lost(note: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Lost, note: note.into(), needs_decision: true }
    }

    /// The same with more to say.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        if !self.note.is_empty() {
            self.note.to_mut().push_str("; ");
        }
        self.note.to_mut().push_str(more);
        self
    }
}

/// Whether a field is set at Vapi, or absent with a default that a caller hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Set.
    Set,
    /// Absent; what Vapi does then.
    Default,
}

/// One field's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Where it stands.
    pub path: String,
    /// Whether it is set.
    pub source: Source,
    /// What became of it.
    pub status: Status,
    /// How, or why.
    pub note: Cow<'static, str>,
    /// Whether a person must decide about it.
    pub needs_decision: bool,
    /// Whether one has.
    pub accepted: bool,
}

impl Entry {
    /// Whether a person must still decide about it.
    pub const fn is_open(&self) -> bool {
        self.needs_decision && !self.accepted
    }
}

/// What became of every field of an assistant and its tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One entry for every field that is set, in the order of the document, then one for every default that counts.
    pub fields: Vec<Entry>,
    /// How many of them a person must still decide about.
    pub open: usize,
}

/// Collects outcomes while a draft is made.
#[derive(Debug, Default)]
pub struct Ledger {
    outcomes: HashMap<Path, Outcome>,
    defaults: Vec<Entry>,
}

impl Ledger {
    /// Notes what became of one field.
    pub fn note(&mut self, field: &Node<'_>, outcome: Outcome) {
        self.outcomes.insert(field.path.clone(), outcome);
    }

    /// Notes what became of a field of which nothing is known yet.
    pub fn note_unless_noted(&mut self, field: &Node<'_>, outcome: impl FnOnce(&Node<'_>) -> Outcome) {
        self.outcomes.entry(field.path.clone()).or_insert_with(|| outcome(field));
    }

    /// Notes the same of every field at and below a place.
    pub fn note_all(&mut self, place: &Node<'_>, outcome: &Outcome) {
        for leaf in place.leaves() {
            self.note(&leaf, outcome.clone());
        }
    }

    /// Notes what became of a text that Vapi renders in every call, which nothing does here.
    pub fn note_text(&mut self, field: &Node<'_>, outcome: Outcome) {
        let templates = field.text().map(liquid::scan).unwrap_or_default();
        let outcome = if templates.is_empty() {
            outcome
        } else {
            let mut names: Vec<String> = templates.iter().map(ToString::to_string).collect();
            names.sort();
            names.dedup();
            let unknown = templates.iter().any(liquid::Template::needs_decision);
            let what = if unknown { "; not every call has a value for all of it" } else { "" };
            let rendered = Outcome::setting(Setting::Templates);
            let note = format!("holds {}{what}", names.join(", "));
            let status = rendered.status.min(outcome.status);
            let needs_decision = rendered.needs_decision || unknown || outcome.needs_decision;
            Outcome { status, needs_decision, ..outcome.and(&rendered.note).and(&note) }
        };
        self.note(field, outcome);
    }

    /// Notes what Vapi does where nothing is set.
    pub fn note_default(&mut self, path: &str, does: &str, outcome: Outcome) {
        let Outcome { status, note, needs_decision } = outcome;
        let note = if note.is_empty() { does.to_owned() } else { format!("{does}: {note}") };
        // Nobody chose it, so only a choice that is still to be made counts.
        let needs_decision = needs_decision && status == Status::Approximated;
        let entry = Entry {
            path: path.to_owned(),
            source: Source::Default,
            status,
            note: note.into(),
            needs_decision,
            accepted: false,
        };
        self.defaults.push(entry);
    }

    /// The report: for every field what was noted of it, else what the rules say. `documents` are the assistant's own
    /// and those of its tools, each with its rules.
    pub fn report(self, documents: &[(Node<'_>, &'static [Rule])], accepted: &[String]) -> Report {
        let mut fields = Vec::new();
        for (document, rules) in documents {
            for leaf in document.leaves() {
                let Outcome { status, note, needs_decision } = match self.outcomes.get(&leaf.path) {
                    Some(outcome) => outcome.clone(),
                    None => mapping::outcome(rules, &leaf, document.path.depth()),
                };
                let accepted = needs_decision && accepted.iter().any(|pattern| leaf.path.matches(0, pattern));
                let path = leaf.path.to_string();
                fields.push(Entry { path, source: Source::Set, status, note, needs_decision, accepted });
            }
        }
        fields.extend(self.defaults.into_iter().map(|mut entry| {
            let is_accepted = |pattern: &String| {
                entry.path.split('.').fold(Path::default(), |path, key| path.key(key)).matches(0, pattern)
            };
            entry.accepted = entry.needs_decision && accepted.iter().any(is_accepted);
            entry
        }));
        let open = fields.iter().filter(|entry| entry.is_open()).count();
        Report { fields, open }
    }
}
