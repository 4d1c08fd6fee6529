//! What `tandem rollout` tells people: calm, exact, and what failed last, where it is read first.

use std::fmt::Write as _;

use origin::numbers::pointing::outlook::{Kind, NumberChange};
use origin::providers::twilio::numbers::VoiceSettings;
use origin::rollout::changes::{Changes, PlannedAgent, ReturningAgent};
use origin::rollout::guard::{Finding, Measure, Side, Verdict};
use origin::rollout::plan::Plan;
use origin::rollout::settings::OnFail;
use origin::rollout::state::{Reason, State};
use origin::rollout::view::{AgentCounts, ItemView, NumberView, RolloutView, VerdictView};
use origin::store::rollouts::RolloutId;
use origin::store::rollouts::numbers::Group;

/// What a command would change.
pub(super) fn changes(changes: &Changes) -> String {
    let mut text = String::new();
    for agent in &changes.forth {
        write_agent(&mut text, agent);
    }
    for ReturningAgent { agent, gone } in &changes.back {
        write_agent(&mut text, agent);
        for number in gone {
            let _ = writeln!(text, "    {number}: the agent answers it no more; it stays as it is");
        }
    }
    for agent in &changes.gone {
        let _ = writeln!(text, "  {agent}: is gone");
    }
    for number in &changes.again {
        let _ = write!(text, "  tried again: ");
        write_number(&mut text, number);
    }
    let forth = changes.forth.iter().map(|agent| agent.before.numbers.len()).sum();
    let _ = match (changes.forth.len(), changes.back.len(), changes.again.len()) {
        (0, 0, 0) => writeln!(text, "Nothing to change."),
        (0, 0, again) => writeln!(text, "{} would be tried again at Twilio.", plural(again, "number")),
        (0, back, _) => writeln!(text, "{} would be switched back.", plural(back, "agent")),
        (agents, ..) => writeln!(
            text,
            "{} with {} would be switched to {}.",
            plural(agents, "agent"),
            plural(forth, "number"),
            changes.target
        ),
    };
    text
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn write_agent(text: &mut String, agent: &PlannedAgent) {
    let _ = write!(text, "  {} ({}): ", agent.name, agent.agent_id);
    let Some(after) = &agent.after else {
        let _ = writeln!(text, "stays on {}", agent.before.system_type);
        return;
    };
    let _ = if agent.missing.is_empty() {
        writeln!(text, "{} -> {}", agent.before.system_type, after.system_type)
    } else {
        writeln!(text, "WOULD FAIL, missing: {}", agent.missing.join(", "))
    };
    for (before, after) in agent.before.numbers.iter().zip(&after.numbers) {
        let _ = writeln!(text, "    {}: {} -> {}", before.number, before.system_type, after.system_type);
    }
    for number in &agent.at_twilio {
        let _ = write!(text, "    ");
        write_number(text, number);
    }
}

/// What becomes of a number at Twilio, in one line.
fn write_number(text: &mut String, change: &NumberChange) {
    let NumberChange { number, change, found, wanted } = change;
    let _ = write!(text, "{number} at Twilio: ");
    let _ = match (change, found, wanted) {
        (Kind::Set, Some(found), Some(wanted)) => writeln!(text, "{}", differences(found, wanted)),
        (Kind::Set, _, wanted) => {
            let wanted = wanted.as_ref().map(|wanted| differences(&VoiceSettings::default(), wanted));
            writeln!(text, "not asked yet -> {}", wanted.unwrap_or_default().replace("(none) -> ", ""))
        }
        (Kind::Unchanged, found, _) => {
            let url = found.as_ref().and_then(|found| found.voice_url.as_deref());
            writeln!(text, "stays as it is{}", url.map(|url| format!(", VoiceUrl {url}")).unwrap_or_default())
        }
        (Kind::LeftAlone, found, _) => {
            let url = found.as_ref().and_then(|found| found.voice_url.as_deref()).unwrap_or("(none)");
            writeln!(text, "LEFT ALONE, as somebody else has changed it: VoiceUrl {url}")
        }
        (Kind::NotTold, ..) => writeln!(text, "nothing, it comes to us whichever system answers"),
        (Kind::Unknown, ..) => writeln!(text, "not asked yet; stays as it is if it leads to Vapi, else what Vapi sets"),
    };
}

/// Setting by setting, by the names in Twilio's API.
fn differences(found: &VoiceSettings, wanted: &VoiceSettings) -> String {
    let changed = found.named().into_iter().zip(wanted.named()).filter(|((_, before), (_, after))| before != after);
    let told = |value: Option<&str>| value.unwrap_or("(none)").to_owned();
    let all: Vec<String> =
        changed.map(|((name, before), (_, after))| format!("{name} {} -> {}", told(before), told(after))).collect();
    all.join(", ")
}

pub(super) fn plan(plan: &Plan, id: Option<RolloutId>) -> String {
    let mut text = String::new();
    for (at, stage) in (1..).zip(&plan.stages) {
        let agents: Vec<&PlannedAgent> = plan.agents.iter().filter(|agent| agent.stage == at).collect();
        let _ = writeln!(text, "Stage {at}, {stage}: {}", plural(agents.len(), "agent"));
        for agent in agents {
            write_agent(&mut text, agent);
        }
    }
    let missing = plan.agents.iter().filter(|agent| !agent.missing.is_empty()).count();
    let unchanged = plan.agents.iter().filter(|agent| agent.after.is_none()).count();
    let numbers = plan.agents.iter().map(|agent| agent.before.numbers.len()).sum();
    let _ = writeln!(
        text,
        "{} with {} to {}; {unchanged} there already, {missing} would fail.",
        plural(plan.agents.len(), "agent"),
        plural(numbers, "number"),
        plan.target
    );
    let _ = match plan.guard.on_fail {
        OnFail::Pause => writeln!(text, "When calls get worse, the rollout pauses."),
        OnFail::Rollback => writeln!(text, "When calls get worse, everything is switched back."),
        OnFail::Off => writeln!(text, "Nobody compares the calls (--guard off)."),
    };
    let _ = match id {
        Some(id) => writeln!(text, "Planned, nothing is changed yet. Begin with: tandem rollout start {id}"),
        None => writeln!(text, "Nothing was recorded (--dry-run)."),
    };
    text
}

/// One line while the work goes on.
pub(super) fn progress(view: &RolloutView) -> String {
    let agents = begun(view);
    let done = view.numbers_in(&["settled"]);
    let all = done + view.numbers_in(&["pending", "conflict", "failed"]);
    let at_twilio = match (all, view.numbers_in(&["conflict", "failed"])) {
        (0, _) => String::new(),
        (_, failed) => format!("; at Twilio {done} of {all} numbers, {failed} failed{}", held_up(view)),
    };
    let told = match view.state {
        State::RollingBack => format!(
            "Switching back: {} of {} agents done, {} failed",
            agents.restored,
            agents.restored + agents.switched + agents.restore_failed,
            agents.restore_failed
        ),
        _ => format!(
            "Stage {} of {}: {} of {} agents switched, {} there already, {} failed",
            view.stage,
            view.stages.len(),
            agents.switched,
            agents.total - agents.unchanged,
            agents.unchanged,
            agents.failed
        ),
    };
    told + &at_twilio
}

/// Why numbers wait, if it is more than their turn.
fn held_up(view: &RolloutView) -> String {
    let waiting = view.numbers.iter().filter(|group| group.state == "pending");
    let codes: Vec<String> =
        waiting.filter_map(|group| Some(format!("{} wait: {}", group.numbers, group.error_code.as_ref()?))).collect();
    if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) }
}

fn write_numbers(text: &mut String, groups: &[Group]) {
    for Group { state, error_code, error, numbers, examples, next_attempt_seconds } in groups {
        let many = plural(usize::try_from(*numbers).unwrap_or(usize::MAX), "number");
        let _ = match state.as_str() {
            "none" => write!(text, "  {many} need nothing at Twilio"),
            "settled" => write!(text, "  {many} settled at Twilio"),
            "pending" => write!(text, "  {many} on the way at Twilio"),
            "conflict" => write!(text, "  {many} left alone at Twilio"),
            _ => write!(text, "  {many} failed at Twilio"),
        };
        if let (Some(code), Some(error)) = (error_code, error) {
            let _ = write!(text, ": {code}: {error}");
        }
        if let (Some(seconds), Some(_)) = (next_attempt_seconds, error_code) {
            let _ = write!(text, "; tried again in {seconds} s");
        }
        if error_code.is_some() {
            let more = if examples.len() < usize::try_from(*numbers).unwrap_or(usize::MAX) { ", …" } else { "" };
            let _ = write!(text, " ({}{more})", examples.join(", "));
        }
        text.push('\n');
    }
}

/// The agents of the stages begun.
fn begun(view: &RolloutView) -> AgentCounts {
    view.stages.iter().filter(|stage| stage.begun).fold(AgentCounts::default(), |sum, stage| sum + stage.agents)
}

/// One line for a list of rollouts.
pub(super) fn line(view: &RolloutView) -> String {
    let AgentCounts { total, switched, restored, .. } = view.agents;
    let failures = view.failures();
    format!(
        "{}  {:12} to {}  stage {} of {}  {total} agents, {switched} switched, {restored} restored, {failures} failed",
        view.id,
        state_word(view.state),
        view.target,
        view.stage,
        view.stages.len()
    )
}

fn state_word(state: State) -> &'static str {
    match state {
        State::RollingBack => "rolling back",
        State::RolledBack => "rolled back",
        other => other.as_str(),
    }
}

pub(super) fn status(view: &RolloutView, agents: &[ItemView], note: Option<&str>) -> String {
    let mut text = String::new();
    let _ = write!(text, "Rollout {} to {}: {}", view.id, view.target, state_word(view.state));
    let _ = match view.reason {
        Some(Reason::Guard) => writeln!(text, ", by the guard"),
        Some(Reason::Person) | None => writeln!(text),
    };
    for (at, stage) in (1..).zip(&view.stages) {
        let AgentCounts { total, switched, unchanged, failed, restored, restore_failed, planned } = stage.agents;
        let _ = write!(text, "  stage {at}, {:>5}: {}", stage.name.to_string(), plural_u64(total, "agent"));
        let parts = [
            (planned, "planned"),
            (switched, "switched"),
            (unchanged, "there already"),
            (failed, "failed"),
            (restored, "switched back"),
            (restore_failed, "not switched back"),
        ];
        let told: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        let _ = writeln!(text, ": {}", told.join(", "));
    }
    write_numbers(&mut text, &view.numbers);
    if let Some(verdict) = &view.verdict {
        write_verdict(&mut text, verdict);
    }
    for agent in agents {
        let name = agent.name.as_deref().unwrap_or("(gone)");
        let _ = write!(text, "  {name} ({}): {}", agent.agent_id, agent.state.as_str().replace('_', " "));
        let _ = match (&agent.error_code, &agent.error) {
            (Some(code), Some(error)) => writeln!(text, ": {code}: {error}"),
            _ => writeln!(text),
        };
        for NumberView { number, state, error_code, error, .. } in &agent.numbers {
            if let (Some(code), Some(error)) = (error_code, error) {
                let _ = writeln!(text, "    {number}: {state}: {code}: {error}");
            }
        }
    }
    if let Some(note) = note {
        let _ = writeln!(text, "{}.", sentence(note));
    }
    let _ = writeln!(text, "{}", next_step(view));
    text
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn plural_u64(count: u64, word: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), word)
}

/// What the one who reads this can do.
fn next_step(view: &RolloutView) -> String {
    let id = view.id;
    let failures = view.failures();
    let retry =
        if failures > 0 { format!(" Try what failed again: tandem rollout start {id}.") } else { String::new() };
    match view.state {
        State::Planned => format!("Nothing is changed yet. Begin with: tandem rollout start {id}"),
        State::Running => "An origin is switching agents. Hold it: tandem rollout pause.".to_owned(),
        State::Waiting => format!(
            "Waiting for you. Next stage: tandem rollout advance {id}.{retry} Back: tandem rollout rollback {id}"
        ),
        State::Paused => format!(
            "Paused: nothing goes on by itself. Go on: tandem rollout start {id}. Back: tandem rollout rollback {id}"
        ),
        State::Completed if failures > 0 => {
            format!("The last stage is done, with failures.{retry} Back: tandem rollout rollback {id}")
        }
        State::Completed => format!("Done. Back: tandem rollout rollback {id}"),
        State::RollingBack => "An origin is switching agents back.".to_owned(),
        State::RolledBack if failures > 0 => {
            format!("Switched back, but for what is listed. Try that again: tandem rollout rollback {id}")
        }
        State::RolledBack => "Switched back: everything is as it was.".to_owned(),
    }
}

fn write_verdict(text: &mut String, verdict: &VerdictView) {
    let word = |verdict| match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::NotEnoughCalls => "not enough calls",
    };
    let _ = writeln!(text, "  guard: {}", word(verdict.verdict));
    for Finding { measure, verdict, now, before, tolerated } in &verdict.findings {
        let (name, unit) = match measure {
            Measure::SetupFailures => ("set-up failures", " %"),
            Measure::ShortHangUps => ("short hang-ups", " %"),
            Measure::ToolErrors => ("tool errors", " %"),
            Measure::FirstAudioMs => ("first audio", " ms"),
        };
        let side = |side: &Side| match side.value {
            Some(value) => format!("{value:.1}{unit} of {}", plural_u64(side.calls, "call")),
            None => "no calls".to_owned(),
        };
        let told = verdict.map_or("does not apply", word);
        let _ = writeln!(
            text,
            "    {name:16} {told:17} now {}, before {}, tolerated +{tolerated}",
            side(now),
            side(before)
        );
    }
}
