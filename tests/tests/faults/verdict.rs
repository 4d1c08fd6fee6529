//! Compares what the database holds in the end with what the plan says. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::plan::{Event, Plan};
use crate::story::{Call, Story, What};
use crate::wire::{Parties, Wire, usage};

/// What the database holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Delivery id and state, one a row.
    pub(crate) inbox: Vec<(String, String)>,
    pub(crate) calls: Vec<SeenCall>,
    /// How often a skip was logged, by the type of the message and the minute.
    pub(crate) skips: BTreeMap<(String, String), usize>,
}

/// A row of `calls`, with its transcript and all that ever changed in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SeenCall {
    pub(crate) call_sid: Option<String>,
    pub(crate) vapi_id: Option<String>,
    pub(crate) system: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) usage: Value,
    /// Role and words, in order.
    pub(crate) transcript: Vec<(String, String)>,
    /// `status ringing > ended`, `usage`, `line 3`: every write, in no order.
    pub(crate) writes: Vec<String>,
}

/// Everything that is not as it must be, in words. Empty: nothing was lost and nothing counted twice.
pub(crate) fn faults(plan: &Plan, parties: &Parties, seen: &Seen) -> Vec<String> {
    let mut faults = inbox(plan, parties, seen);
    faults.extend(calls(plan, parties, seen));
    faults.extend(skips(plan, seen));
    faults
}

fn inbox(plan: &Plan, parties: &Parties, seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rows: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (delivery, state) in &seen.inbox {
        rows.entry(delivery).or_default().push(state);
    }
    for event in &plan.events {
        let call = &plan.calls[event.call];
        let delivery = Wire::new(parties, call, event.what).delivery();
        match rows.remove(delivery.as_str()).as_deref() {
            None => faults.push(format!("lost: {delivery} ({:?} of {:?})", event.what, call.story)),
            Some([state]) if call.states(event.what).contains(state) => {}
            Some(states) => {
                let wanted = call.states(event.what);
                faults.push(format!(
                    "{delivery} ({:?} of {:?}) is {states:?} and not {wanted:?}",
                    event.what, call.story
                ));
            }
        }
    }
    faults.extend(rows.into_keys().map(|delivery| format!("never sent: {delivery}")));
    faults
}

fn calls(plan: &Plan, parties: &Parties, seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    for call in &plan.calls {
        let is_its =
            |row: &&SeenCall| row.call_sid.as_ref() == Some(&call.sid) || row.vapi_id.as_ref() == Some(&call.vapi_id);
        let rows: Vec<&SeenCall> = seen.calls.iter().filter(is_its).collect();
        let fault = match (&rows[..], call.record()) {
            ([], None) => None,
            ([row], Some(_)) => differs(call, parties, row),
            _ => Some(format!("has {} records", rows.len())),
        };
        faults.extend(fault.map(|fault| format!("call {} ({:?}) {fault}", call.vapi_id, call.story)));
    }
    let records = plan.calls.iter().filter(|call| call.record().is_some()).count();
    if seen.calls.len() > records {
        faults.push(format!("{} records of calls where there should be {records}", seen.calls.len()));
    }
    faults
}

/// What is wrong with a call's record.
fn differs(call: &Call, parties: &Parties, row: &SeenCall) -> Option<String> {
    let record = call.record()?;
    let status = (row.system.as_str(), row.status.as_str(), row.reason.as_deref());
    if status != (record.system, record.status, record.reason) {
        return Some(format!("is {status:?} and not {:?}", (record.system, record.status, record.reason)));
    }
    let lines = if record.has_report { call.lines(call.story.turns()) } else { Vec::new() };
    if !lines.iter().map(|(role, text)| (*role, text)).eq(row.transcript.iter().map(|(role, text)| (&**role, text))) {
        return Some(format!("has the transcript {:?}", row.transcript));
    }
    if record.has_report && row.usage != usage(parties, call) {
        return Some(format!("has the usage {}", row.usage));
    }
    let mut writes: Vec<&str> = row.writes.iter().map(String::as_str).collect();
    writes.sort_unstable();
    let mut single: Vec<String> = (0..lines.len()).map(|line| format!("line {line}")).collect();
    single.extend(record.has_report.then(|| "usage".to_owned()));
    // A call may be told to be over before it is told to have been answered.
    let ways: &[&[&str]] = match record.status {
        "ended" => &[&["status ringing > ended"], &["status ringing > in-progress", "status in-progress > ended"]],
        _ => &[&["status ringing > in-progress"]],
    };
    let is_single = ways.iter().any(|way| {
        let mut wanted: Vec<&str> = single.iter().map(String::as_str).chain(way.iter().copied()).collect();
        wanted.sort_unstable();
        wanted == writes
    });
    (!is_single).then(|| format!("was written so: {writes:?}"))
}

/// Of each type of message that was skipped, the first of a minute is logged.
fn skips(plan: &Plan, seen: &Seen) -> Vec<String> {
    let skipped = |event: &&Event| event.what.is_vapis() && plan.calls[event.call].story == Story::Skipped;
    let wanted: BTreeSet<&str> = plan.events.iter().filter(skipped).map(|event| word(event.what)).collect();
    let logged: BTreeSet<&str> = seen.skips.keys().map(|(kind, _)| kind.as_str()).collect();
    let missing = wanted.difference(&logged).map(|kind| format!("no skip of {kind} is logged"));
    let strange = logged.difference(&wanted).map(|kind| format!("a skip of {kind} is logged, and nothing was skipped"));
    let again = seen.skips.iter().filter(|(_, times)| **times > 1);
    let again = again.map(|(key, times)| format!("{times} skips of {key:?} are logged"));
    missing.chain(strange).chain(again).collect()
}

/// The type of a message.
fn word(what: What) -> &'static str {
    match what {
        What::InProgress | What::Ended => "status-update",
        What::Transcript { .. } => "transcript[transcriptType=\"final\"]",
        What::Speech { .. } => "speech-update",
        What::Conversation { .. } => "conversation-update",
        What::Report => "end-of-call-report",
        What::Progress { .. } | What::Stream { .. } => "",
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::plan::Wish;

    fn parties() -> Parties {
        Parties {
            account_sid: "AC1".to_owned(),
            assistant_id: "a1".to_owned(),
            number: "+15550100001".to_owned(),
            switched_number: "+15550100002".to_owned(),
        }
    }

    /// A small plan, and what the database holds when all went well.
    fn well() -> (Plan, Seen) {
        let now = datetime!(2026-11-22 15:00 UTC);
        let plan = Plan::new(1, &Wish { events: 80, outage: 1, now, switched_at: datetime!(2026-11-22 14:59:30 UTC) });
        let mut seen = Seen::default();
        for event in &plan.events {
            let call = &plan.calls[event.call];
            let delivery = Wire::new(&parties(), call, event.what).delivery();
            seen.inbox.push((delivery, call.states(event.what)[0].to_owned()));
            if call.story == Story::Skipped && event.what.is_vapis() {
                seen.skips.insert((word(event.what).to_owned(), "15:00".to_owned()), 1);
            }
        }
        for call in &plan.calls {
            let Some(record) = call.record() else { continue };
            let lines = if record.has_report { call.lines(call.story.turns()) } else { Vec::new() };
            let mut writes: Vec<String> = (0..lines.len()).map(|line| format!("line {line}")).collect();
            writes.push("status ringing > in-progress".to_owned());
            writes.extend((record.status == "ended").then(|| "status in-progress > ended".to_owned()));
            writes.extend(record.has_report.then(|| "usage".to_owned()));
            seen.calls.push(SeenCall {
                call_sid: Some(call.sid.clone()),
                vapi_id: record.has_report.then(|| call.vapi_id.clone()),
                system: record.system.to_owned(),
                status: record.status.to_owned(),
                reason: record.reason.map(str::to_owned),
                usage: usage(&parties(), call),
                transcript: lines.into_iter().map(|(role, text)| (role.to_owned(), text)).collect(),
                writes,
            });
        }
        (plan, seen)
    }

    /// What is found when this is done to a good database.
    fn found(harm: impl FnOnce(&mut Seen)) -> Vec<String> {
        let (plan, mut seen) = well();
        harm(&mut seen);
        faults(&plan, &parties(), &seen)
    }

    #[test]
    fn all_well() {
        assert_eq!(found(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn an_event_that_was_lost_doubled_left_or_made_up() {
        assert!(found(|seen| drop(seen.inbox.remove(3)))[0].starts_with("lost: "));
        assert_eq!(found(|seen| seen.inbox.push(seen.inbox[3].clone())).len(), 1);
        assert!(found(|seen| seen.inbox[3].1 = "received".to_owned())[0].contains("received"));
        assert!(found(|seen| seen.inbox.push(("x".to_owned(), "applied".to_owned())))[0].starts_with("never sent: x"));
    }

    #[test]
    fn a_record_that_is_missing_doubled_or_anothers() {
        assert!(found(|seen| drop(seen.calls.remove(0)))[0].ends_with("has 0 records"));
        assert!(found(|seen| seen.calls.push(seen.calls[0].clone()))[0].ends_with("has 2 records"));
        assert!(found(|seen| seen.calls.push(SeenCall::default()))[0].contains("records of calls where"));
    }

    #[test]
    fn a_record_that_says_something_else() {
        for harm in [
            (|call| call.reason = Some("caller_hung_up".to_owned())) as fn(&mut SeenCall),
            |call| call.status = "in-progress".to_owned(),
            |call| call.system = "openai-realtime".to_owned(),
            |call| call.usage = Value::Null,
            |call| drop(call.transcript.pop()),
            |call| call.transcript.swap(0, 1),
        ] {
            let found = found(|seen| harm(&mut seen.calls[0]));
            assert_eq!(found.len(), 1, "{found:?}");
        }
    }

    #[test]
    fn a_write_too_many() {
        for write in ["usage", "line 0", "status ended > in-progress", "status in-progress > ended"] {
            let found = found(|seen| seen.calls[0].writes.push(write.to_owned()));
            assert!(found.len() == 1 && found[0].contains("was written so"), "{found:?}");
        }
        assert_eq!(found(|seen| seen.calls[0].writes.clear()).len(), 1);
    }

    #[test]
    fn a_skip_that_is_logged_twice_never_or_for_nothing() {
        let first = |seen: &Seen| seen.skips.keys().next().expect("there are some").clone();
        assert_eq!(found(|seen| *seen.skips.get_mut(&first(seen)).expect("it is there") += 1).len(), 1);
        assert_eq!(found(|seen| assert!(seen.skips.remove(&first(seen)).is_some())).len(), 1);
        assert_eq!(found(|seen| *seen.skips.entry(("x".to_owned(), "y".to_owned())).or_default() = 1).len(), 1);
    }
}
