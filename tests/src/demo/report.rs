//! What happened in one call, for a person to read.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::stack::edge::Edge;
use crate::stack::root;
use crate::twilio::{CallHandle, Purpose, TraceEntry, What};

/// What has been told of a call that goes on.
#[derive(Debug, Default)]
pub(super) struct Trace {
    told: usize,
}

impl Trace {
    /// Prints what has happened since, with the edge's own words where it decided.
    pub(super) async fn tell(&mut self, handle: &CallHandle, edge: &Edge) {
        let trace = handle.trace();
        for entry in trace.iter().skip(self.told).filter(|entry| !matches!(entry.what, What::Mark { .. })) {
            println!("  {entry}");
            if let What::Webhook { purpose: Purpose::Voice | Purpose::Redirect, url, .. } = &entry.what
                && let Some(line) = decided(edge, handle.sid().as_str(), url).await
            {
                println!("            edge: {line}");
            }
        }
        self.told = trace.len();
    }
}

/// What the edge says of its decision about a call. Its log comes through two processes, a little later.
async fn decided(edge: &Edge, call_sid: &str, url: &str) -> Option<String> {
    for _ in 0..20 {
        if let Some(line) = decision(&edge.log(), call_sid, url) {
            return Some(line);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// One call.
#[derive(Debug)]
pub(super) struct Report {
    name: &'static str,
    trace: Vec<TraceEntry>,
    recording: PathBuf,
    /// The origin's record of the call.
    pub(super) record: Value,
    /// The system that the call is pinned to.
    pub(super) system: String,
    /// How often our side cleared audio that the caller had cut off.
    pub(super) interruptions: usize,
    dead_air_ms: u64,
}

impl Report {
    pub(super) fn new(name: &'static str, handle: &CallHandle, record: Value, recording: PathBuf) -> Self {
        let trace = handle.trace();
        let interruptions = trace.iter().filter(|entry| matches!(entry.what, What::Cleared { .. })).count();
        let system = text(&record["systemType"]).to_owned();
        Self { name, trace, recording, record, system, interruptions, dead_air_ms: handle.dead_air_ms() }
    }

    /// Lines of the agent's that the caller cut off.
    pub(super) fn cut_off_lines(&self) -> usize {
        self.transcript().filter(|line| line["interrupted"] == true).count()
    }

    fn transcript(&self) -> impl Iterator<Item = &Value> {
        self.record["transcript"].as_array().into_iter().flatten()
    }

    /// From Twilio's request to the TwiML, in milliseconds.
    fn answer_ms(&self) -> Option<u64> {
        self.trace.iter().find_map(|entry| match entry.what {
            What::Webhook { purpose: Purpose::Voice, status: Some(_), took_us, .. } => Some(took_us / 1000),
            _ => None,
        })
    }

    /// From the answer to the agent's first sound, in milliseconds.
    fn first_sound_ms(&self) -> Option<u64> {
        let at = |found: fn(&What) -> bool| self.trace.iter().find(|e| found(&e.what)).map(|e| e.at_ms);
        let answered = at(|what| matches!(what, What::Answered))?;
        at(|what| matches!(what, What::AgentSpeaks)).map(|sound| sound.saturating_sub(answered))
    }

    fn duration_ms(&self) -> u64 {
        self.trace.last().map_or(0, |entry| entry.at_ms)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  what was said, as the origin's record has it:")?;
        for line in self.transcript() {
            let cut = if line["interrupted"] == true { " … (cut off by the caller)" } else { "" };
            writeln!(f, "    {:>9}: {}{cut}", text(&line["role"]), text(&line["text"]))?;
        }
        let recording = self.recording.strip_prefix(root()).unwrap_or(&self.recording);
        write!(f, "  recording, caller left and agent right: {}", recording.display())
    }
}

/// What the edge's log says of its latest decision on a webhook of this call.
fn decision(log: &str, call_sid: &str, url: &str) -> Option<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line.get(line.find('{')?..)?).ok());
    let line = lines.rev().find(|line| line["call"] == call_sid && url.contains(text(&line["webhook"])))?;
    let replica = line["replica"].as_str().map(|replica| format!(", replica {replica}")).unwrap_or_default();
    let origin = line["origin"]
        .as_u64()
        .map_or_else(|| ", without asking the origin".to_owned(), |status| format!(", the origin answered {status}"));
    Some(format!("decided {}{replica}{origin}", text(&line["decision"])))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// The table at the end.
pub(super) fn summary(reports: &[Report]) -> String {
    let ms = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let head = ["", "system", "TwiML after", "first sound", "interrupted", "dead air", "length", "ended"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for report in reports {
        rows.push(vec![
            report.name.to_owned(),
            report.system.clone(),
            ms(report.answer_ms()),
            ms(report.first_sound_ms()),
            report.interruptions.to_string(),
            ms(Some(report.dead_air_ms)),
            format!("{:.1} s", Duration::from_millis(report.duration_ms()).as_secs_f64()),
            text(&report.record["endReason"]).to_owned(),
        ]);
    }
    let widths: Vec<usize> =
        (0..head.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
