//! `sim demo`: three spoken calls through the whole system, and what happened in each.
//!
//! It is a demonstration and a check: a call that does not go as told ends it with an error.

mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::openai::{RealtimeOptions, Reply};
use crate::speech::{clip, g711, wav};
use crate::stack::root;
use crate::tandem::{Options, Tandem};
use crate::twilio::{CallHandle, Caller, EndReason, InboundCall};
use crate::vapi::Script;
use report::{Report, Trace, summary};

/// No call of the demonstration takes half of this, not even with the real OpenAI.
const CALL_LIMIT: Duration = Duration::from_mins(3);
/// How soon it is told what happens in a call.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// The person who calls.
const CALLER: &str = "+15550199";

/// Plays the three calls.
pub async fn run() -> anyhow::Result<()> {
    let began = Instant::now();
    let openai_api_key = std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty());
    let real = openai_api_key.is_some();
    println!("Starting Postgres, the origin, the Worker in workerd and the simulated services.");
    let mut tandem = Tandem::start(Options { openai: model(), openai_api_key, ..Options::default() }).await?;
    println!("Ready after {:.1} s.", began.elapsed().as_secs_f64());

    let mut reports = Vec::new();
    let reception = tandem.agent("Reception")?.clone();
    let night_line = tandem.agent("Night line")?.clone();

    announce(1, "a call to a number whose agent is on Vapi");
    tandem.vapi.set_script(
        Script::new()
            .say(&clip("agent-greeting").text, clip("agent-greeting").mulaw)
            .hear(&clip("caller-appointment").text)
            .say(&clip("agent-saturday").text, clip("agent-saturday").mulaw)
            .hear(&clip("caller-thanks").text)
            .say(&clip("agent-goodbye").text, clip("agent-goodbye").mulaw),
    );
    let report = play(&tandem, "call 1", &reception.number, plain_caller()).await?;
    ensure!(report.system == "vapi", "call 1 was not handed to Vapi: {}", report.record);
    finish(&mut reports, report);

    let title = if real { "a call bridged to the real OpenAI Realtime" } else { "a call bridged to OpenAI Realtime" };
    announce(2, title);
    let report = play(&tandem, "call 2", &night_line.number, interrupting_caller()).await?;
    ensure!(report.system == "openai-realtime", "call 2 was not bridged: {}", report.record);
    if !real {
        ensure!(report.interruptions == 1, "the caller interrupted once, noticed: {}", report.interruptions);
        ensure!(report.cut_off_lines() == 1, "one line is cut to what was heard: {}", report.record);
    }
    finish(&mut reports, report);

    announce(3, "the first agent is switched, and its number called again");
    let switched = Instant::now();
    tandem.switch(&reception.id, "openai-realtime").await?;
    println!("  PUT /api/agents/{}/system-type → openai-realtime, {} ms", reception.id, switched.elapsed().as_millis());
    tandem.replicated(&reception.id).await?;
    println!("  the edge's replica has it after {} ms", switched.elapsed().as_millis());
    let report = play(&tandem, "call 3", &reception.number, plain_caller()).await?;
    ensure!(report.system == "openai-realtime", "call 3 was not bridged after the switch: {}", report.record);
    finish(&mut reports, report);

    println!("\n{}", summary(&reports));
    tandem.stop().await?;
    println!("Everything is stopped. Whole demonstration: {:.0} s.", began.elapsed().as_secs_f64());
    Ok(())
}

/// What the simulated model says, in every session.
fn model() -> RealtimeOptions {
    let says = ["agent-greeting", "agent-hours", "agent-saturday", "agent-goodbye"];
    RealtimeOptions { replies: says.map(|name| Reply::speech(clip(name))).into(), ..RealtimeOptions::default() }
}

/// Listens to the greeting, asks, listens, thanks and hangs up.
fn plain_caller() -> Caller {
    Caller::new()
        .wait_until_agent_quiet()
        .say(clip("caller-appointment").mulaw)
        .wait_until_agent_quiet()
        .say(clip("caller-thanks").mulaw)
        .wait_until_agent_quiet()
        .hang_up()
}

/// The same person in a hurry: cuts the long answer off.
fn interrupting_caller() -> Caller {
    Caller::new()
        .wait_until_agent_quiet()
        .say(clip("caller-appointment").mulaw)
        .interrupt(3000, clip("caller-interrupts").mulaw)
        .wait_until_agent_quiet()
        .say(clip("caller-thanks").mulaw)
        .wait_until_agent_quiet()
        .hang_up()
}

fn announce(number: u32, what: &str) {
    println!("\nCall {number}: {what}");
}

fn finish(reports: &mut Vec<Report>, report: Report) {
    println!("{report}");
    reports.push(report);
}

async fn play(tandem: &Tandem, name: &'static str, to: &str, caller: Caller) -> anyhow::Result<Report> {
    let call = InboundCall { to: to.to_owned(), from: CALLER.to_owned(), caller, ..InboundCall::default() };
    let handle = tandem.twilio.call(call);
    let (began, mut told) = (Instant::now(), Trace::default());
    let end = loop {
        let ended = handle.wait_ended(TELL_EVERY).await;
        told.tell(&handle, &tandem.edge).await;
        if let Ok(end) = ended {
            break end;
        }
        ensure!(began.elapsed() < CALL_LIMIT, "{name} does not end:\n{}", handle.trace_text());
    };
    let record = tandem.ended_call(handle.sid().as_str()).await?;
    ensure!(
        end == EndReason::CallerHungUp,
        "{name} ended otherwise than by the caller: {end}\n{}\n{}",
        handle.trace_text(),
        tandem.origin.log_tail()
    );
    let recording = save(name, &handle)?;
    Ok(Report::new(name, &handle, record, recording))
}

/// Saves both sides of a call as a stereo WAV file.
fn save(name: &str, handle: &CallHandle) -> anyhow::Result<PathBuf> {
    let folder = root().join("target/demo");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.wav", name.replace(' ', "-")));
    let recording = handle.recording();
    wav::write_call(&path, &g711::mulaw_to_pcm(&recording.caller), &g711::mulaw_to_pcm(&recording.agent))
        .with_context(|| format!("cannot save {}", path.display()))?;
    Ok(path)
}
