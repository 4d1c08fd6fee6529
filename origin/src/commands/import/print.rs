//! What an import prints: for people the changes and the report, worst first; for programs everything.

use std::fmt::Write as _;

use origin::import::report::{Entry, Report, Source, Status};
use origin::import::{Attempt, Imported, Verdict};
use serde_json::{Value, json};

/// Longer values are cut in the list of changes; JSON shows them whole.
const SHOWN: usize = 100;
/// So many fields that came to the same are named; more are counted.
const LISTED: usize = 3;

pub(super) fn as_json(attempts: &[Attempt], dry_run: bool, verdict: Verdict) -> Value {
    let assistants: Vec<Value> = attempts
        .iter()
        .map(|attempt| match &attempt.result {
            Ok(imported) => json!({
                "assistantId": attempt.assistant_id,
                "action": imported.change.action,
                "change": imported.change,
                "report": imported.report,
            }),
            Err(error) => json!({
                "assistantId": attempt.assistant_id,
                "action": "failed",
                "error": in_one_line(error),
            }),
        })
        .collect();
    json!({ "dryRun": dry_run, "exitCode": verdict.exit_code(), "assistants": assistants })
}

pub(super) fn as_text(attempts: &[Attempt], dry_run: bool, verdict: Verdict) -> String {
    let mut text = String::new();
    for attempt in attempts {
        match &attempt.result {
            Ok(imported) => write_imported(&mut text, &attempt.assistant_id, imported, dry_run),
            Err(error) => {
                let _ = writeln!(text, "{}: failed: {}\n", attempt.assistant_id, in_one_line(error));
            }
        }
    }
    let failed = attempts.iter().filter(|attempt| attempt.result.is_err()).count();
    let open: usize = attempts.iter().filter_map(|one| one.result.as_ref().ok()).map(|one| one.report.open).sum();
    let _ = write!(text, "{} assistant{}", attempts.len(), if attempts.len() == 1 { "" } else { "s" });
    let _ = match verdict {
        Verdict::Failed => writeln!(text, ", {failed} failed"),
        Verdict::Open => writeln!(text, "; {open} fields to decide about, marked !"),
        Verdict::Done => writeln!(text, "; nothing left to decide"),
    };
    text
}

fn write_imported(text: &mut String, assistant: &str, imported: &Imported, dry_run: bool) {
    let change = &imported.change;
    let _ = write!(text, "{:?}, assistant {assistant}: {}", change.name, change.action.as_str(dry_run));
    if let Some(id) = change.agent_id {
        let _ = write!(text, ", agent {id}");
    }
    text.push('\n');
    write_changes(text, "", &change.before, &change.after);
    for kept in &change.kept {
        let _ = writeln!(text, "  kept: {kept}");
    }
    write_report(text, &imported.report);
    text.push('\n');
}

/// Each value that is different before and after.
fn write_changes(text: &mut String, path: &str, before: &Value, after: &Value) {
    if before == after {
        return;
    }
    if let (Some(after), true) = (after.as_object(), before.is_object() || before.is_null()) {
        let mut keys: Vec<&String> = before.as_object().into_iter().flatten().map(|(key, _)| key).collect();
        keys.extend(after.keys());
        keys.sort();
        keys.dedup();
        for key in keys {
            let part = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let value = |of: &Value| of.get(key).cloned().unwrap_or_default();
            write_changes(text, &part, &value(before), after.get(key).unwrap_or(&Value::Null));
        }
        return;
    }
    let _ = match before {
        Value::Null => writeln!(text, "  + {path}: {}", short(after)),
        before if after.is_null() => writeln!(text, "  - {path}: {}", short(before)),
        before => writeln!(text, "  ~ {path}: {} -> {}", short(before), short(after)),
    };
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The report, worst first. Fields that stand together and came to the same are one line.
fn write_report(text: &mut String, report: &Report) {
    for status in [Status::Lost, Status::Approximated, Status::CarriedInactive, Status::Carried] {
        let entries: Vec<&Entry> = report.fields.iter().filter(|entry| entry.status == status).collect();
        for group in entries.chunk_by(|a, b| {
            (a.source, &a.note, a.is_open()) == (b.source, &b.note, b.is_open()) && common(&a.path, &b.path) > 0
        }) {
            let first = group[0];
            let mark = if first.is_open() { '!' } else { ' ' };
            let place = match (group, first.source) {
                ([_], Source::Set) => first.path.clone(),
                ([_], Source::Default) => format!("{} (not set)", first.path),
                (few, Source::Set) if few.len() <= LISTED => {
                    few.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>().join(", ")
                }
                _ => {
                    let shared = group.iter().map(|entry| common(&first.path, &entry.path)).min().unwrap_or(0);
                    format!("{}.** ({} fields)", &first.path[..shared], group.len())
                }
            };
            let note = if first.note.is_empty() { String::new() } else { format!(": {}", first.note) };
            let accepted = if first.accepted { " (accepted)" } else { "" };
            let _ = writeln!(text, "  {mark} {status:<17} {place}{note}{accepted}");
        }
    }
}

/// How much of two paths is the same, up to the end of a step.
fn common(a: &str, b: &str) -> usize {
    let same =
        a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map_or(a.len().min(b.len()), |((at, _), _)| at);
    a[..same].rfind(['.', '[']).unwrap_or(0)
}

/// An error with its causes, in one line.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_one_by_one() {
        let mut text = String::new();
        let before = json!({"a": 1, "b": {"c": [1], "d": "x"}, "e": null});
        let after = json!({"a": 1, "b": {"c": [2], "f": "y"}, "e": {"g": true}});
        write_changes(&mut text, "", &before, &after);
        assert_eq!(text, "  ~ b.c: [1] -> [2]\n  - b.d: \"x\"\n  + b.f: \"y\"\n  + e.g: true\n");
    }

    #[test]
    fn what_stands_together_is_one_line() {
        let entry = |path: &str, note: &'static str| Entry {
            path: path.to_owned(),
            source: Source::Set,
            status: Status::Lost,
            note: note.into(),
            needs_decision: true,
            accepted: false,
        };
        let fields = vec![
            entry("a.b[0].c", "x"),
            entry("a.b[0].d", "x"),
            entry("a.b[1]", "x"),
            entry("a.b[2]", "x"),
            entry("a.c", "y"),
            entry("a.d", "y"),
        ];
        let mut text = String::new();
        write_report(&mut text, &Report { fields, open: 6 });
        assert_eq!(text, "  ! lost              a.b.** (4 fields): x\n  ! lost              a.c, a.d: y\n");
    }
}
