//! The consumer of events that the origin did not take, and of those that it never took. Each message is settled by
//! itself, and the batch never fails: a failed batch would bring back even the messages that were delivered.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::join_all;
use shared::dead_letter::KEEP_SECONDS;
use worker::Env;
use worker::js_sys::Uint8Array;
use worker::wasm_bindgen::JsCast;
use worker::wasm_bindgen::prelude::wasm_bindgen;
// As in `runtime`.
#[allow(unused_imports)]
use worker::{js_sys, wasm_bindgen, wasm_bindgen_futures};

use super::isolate::Isolate;
use super::runtime::{self, Batch, Fault, Message};
use super::{now_ms, now_seconds, print, since};
use crate::forward::{OriginRequest, Verdict};
use crate::log::Line;
use crate::reply::Problem;
use crate::retry::{
    Body, DEAD_LETTER_DELAY_SECONDS, Event, MAX_RETRIES, compressed, delay_seconds, is_dead_letters, letter,
};
use crate::salvaged::Salvaged;

/// How long the origin may take with one event, in milliseconds. Nobody waits for it.
const ORIGIN_LIMIT_MS: u32 = 15_000;
/// How long the store of dead letters may take, in milliseconds.
const STORE_LIMIT_MS: u32 = 15_000;

/// Settles a batch of messages, each by itself.
#[wasm_bindgen]
pub async fn consume(batch: Batch, env: Env) {
    AssertUnwindSafe(settle_all(batch, env)).await;
}

async fn settle_all(batch: Batch, env: Env) {
    let dead_letters = is_dead_letters(&batch.queue());
    let isolate = Isolate::of(&env);
    let messages = batch.messages();
    let settling = messages.iter().map(|message| settle(isolate.as_deref(), message.unchecked_into(), dead_letters));
    join_all(settling).await;
}

/// What became of one attempt.
enum Outcome {
    /// The origin has it.
    Delivered(u16),
    /// It lies with the dead letters, and is not tried again. The origin's status, if it was the origin that will
    /// never take it.
    Buried(Option<u16>),
    /// It came from nobody that we know.
    Dropped(Problem),
    /// It comes again.
    Failed(Option<u16>, Fault),
}

async fn settle(isolate: Option<&Isolate>, message: Message, dead_letters: bool) {
    let started = now_ms();
    let attempt = message.attempts();
    let text = message.body().as_string().unwrap_or_default();
    let mut delivery = None;
    let outcome = match isolate {
        Some(isolate) => {
            let trying = AssertUnwindSafe(attempt_at(isolate, &text, attempt, dead_letters, &mut delivery));
            // One message's panic must not bring back the others of its batch.
            trying.catch_unwind().await.unwrap_or_else(|_| Outcome::Failed(None, Fault("panicked".to_owned())))
        }
        None => Outcome::Failed(None, Fault("the Worker is not set up completely".to_owned())),
    };
    let (decision, reason, origin, fault, settled) = match outcome {
        Outcome::Delivered(status) => ("deliver", None, Some(status), None, message.ack()),
        Outcome::Buried(status) => ("bury", None, status, None, message.ack()),
        Outcome::Dropped(problem) => ("drop", Some(problem.code()), None, None, message.ack()),
        Outcome::Failed(status, fault) => {
            let delay = if dead_letters { DEAD_LETTER_DELAY_SECONDS } else { delay_seconds(&message.id(), attempt) };
            ("retry", None, status, Some(fault), runtime::retry(&message, delay))
        }
    };
    let fault = fault.or_else(|| settled.err().map(Fault::from));
    let line = Line {
        decision,
        reason,
        delivery: delivery.as_deref(),
        origin,
        fault: fault.as_ref().map(|Fault(fault)| fault.as_str()),
        attempt: Some(attempt),
        ms: since(started),
        ..Line::default()
    };
    print(line, decision != "deliver");
}

/// Tries once. `delivery` is for the log.
async fn attempt_at(
    isolate: &Isolate,
    message: &str,
    attempt: u32,
    dead_letters: bool,
    delivery: &mut Option<String>,
) -> Outcome {
    let (event, body) = match open(isolate, message).await {
        Ok(opened) => opened,
        Err(outcome) => return outcome,
    };
    *delivery = Some(event.delivery.to_string());
    if dead_letters {
        // Its attempts are counted anew here. The queue gives up after the first and its retries.
        return bury(isolate, &event, &body, MAX_RETRIES + 1, None).await;
    }
    let request = OriginRequest::sign(&isolate.settings, &event.path, &body, now_seconds());
    let raw = Uint8Array::from(body.as_slice());
    let answer = runtime::post(&request, &event.content_type, &event.delivery, raw.as_ref(), ORIGIN_LIMIT_MS).await;
    let status = answer.as_ref().ok().map(runtime::Answer::status);
    match (Verdict::of(status), status) {
        (Verdict::Taken, Some(status)) => Outcome::Delivered(status),
        // Its sender was told that it is in good hands, so it is not dropped.
        (Verdict::Refused, status) => bury(isolate, &event, &body, attempt, status).await,
        // The last attempt. The queue would move the event to the dead letters itself, and does so when the store fails
        // now; but how often it was tried only this message tells.
        (Verdict::NotTaken, status) if attempt > MAX_RETRIES => bury(isolate, &event, &body, attempt, status).await,
        (_, status) => Outcome::Failed(status, answer.err().unwrap_or_else(|| Fault("not taken".to_owned()))),
    }
}

/// The event in a message, and the body that was received.
async fn open<'a>(isolate: &Isolate, message: &'a str) -> Result<(Event<'a>, Vec<u8>), Outcome> {
    let failed = |fault| Outcome::Failed(None, fault);
    if let Ok(salvaged) = serde_json::from_str::<Salvaged>(message) {
        let body = decompress(&salvaged.gzip).await.map_err(failed)?;
        let event = salvaged.admit(&body, &isolate.settings).map_err(Outcome::Dropped)?;
        return Ok((event, body));
    }
    // Written by another version, perhaps: it waits for one that reads it.
    let event: Event<'a> =
        serde_json::from_str(message).map_err(|_| failed(Fault("the message is no event".to_owned())))?;
    let body = match &event.body {
        Body::Text(text) => text.as_bytes().to_vec(),
        Body::Gzip(text) => decompress(text).await.map_err(failed)?,
    };
    Ok((event, body))
}

async fn decompress(base64: &str) -> Result<Vec<u8>, Fault> {
    let bytes = compressed(base64).ok_or_else(|| Fault("the event's body is not base64".to_owned()))?;
    Ok(runtime::gunzip(&bytes).await?.to_vec())
}

/// Leaves a letter where the origin's commands find it. The key is that of the event, so a second try changes nothing.
async fn bury(isolate: &Isolate, event: &Event<'_>, body: &[u8], attempts: u32, status: Option<u16>) -> Outcome {
    let letter = letter(event, body, attempts, status);
    let Ok(text) = serde_json::to_string(&letter) else {
        return Outcome::Failed(status, Fault("the letter cannot be written".to_owned()));
    };
    match runtime::write(&isolate.routes, &letter.key(), &text, KEEP_SECONDS, STORE_LIMIT_MS).await {
        Ok(()) => Outcome::Buried(status),
        Err(fault) => Outcome::Failed(status, fault),
    }
}
