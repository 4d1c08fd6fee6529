//! The consumer of events that the origin did not take. Each message is settled by itself, and the batch never fails:
//! a failed batch would bring back even the messages that were delivered.

use std::panic::AssertUnwindSafe;

use futures_util::future::join_all;
use worker::Env;
use worker::js_sys::Uint8Array;
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{JsCast, JsValue};
// As in `runtime`.
#[allow(unused_imports)]
use worker::{js_sys, wasm_bindgen, wasm_bindgen_futures};

use super::isolate::Isolate;
use super::runtime::{self, Batch, Fault, Message};
use super::{now_ms, now_seconds, print, since};
use crate::forward::{OriginRequest, Verdict};
use crate::log::Line;
use crate::retry::{Body, Event, compressed, delay_seconds, is_dead_letters};

/// How long the origin may take with one event, in milliseconds. Nobody waits for it.
const LIMIT_MS: u32 = 15_000;

/// The runtime's entry; it finds this by its name.
#[wasm_bindgen]
pub async fn queue(batch: Batch, env: Env, _: JsValue) {
    AssertUnwindSafe(consume(batch, env)).await;
}

async fn consume(batch: Batch, env: Env) {
    let dead_letters = is_dead_letters(&batch.queue());
    let isolate = Isolate::of(&env);
    let messages = batch.messages();
    let settling = messages.iter().map(|message| settle(isolate.as_deref(), message.unchecked_into(), dead_letters));
    join_all(settling).await;
}

async fn settle(isolate: Option<&Isolate>, message: Message, dead_letters: bool) {
    let started = now_ms();
    let attempt = message.attempts();
    let text = message.body().as_string().unwrap_or_default();
    let event = serde_json::from_str::<Event<'_>>(&text).ok();
    let outcome = match (isolate, &event) {
        (Some(isolate), Some(event)) => deliver(isolate, event).await,
        (None, _) => Err(Fault("the Worker is not set up completely".to_owned())),
        // Written by another version, perhaps: it waits for one that reads it.
        (_, None) => Err(Fault("the message is no event".to_owned())),
    };
    let status = outcome.as_ref().ok().copied();
    let (decision, settled) = match Verdict::of(status) {
        Verdict::Taken => ("deliver", message.ack()),
        Verdict::Refused => ("drop", message.ack()),
        Verdict::NotTaken => {
            let decision = if dead_letters { "dead" } else { "retry" };
            (decision, runtime::retry(&message, delay_seconds(attempt, dead_letters)))
        }
    };
    let fault = outcome.err().or_else(|| settled.err().map(Fault::from));
    let line = Line {
        webhook: event.as_ref().map(|event| event.path.split('?').next().unwrap_or_default()),
        decision,
        delivery: event.as_ref().map(|event| event.delivery.as_ref()),
        origin: Some(status.unwrap_or_default()),
        fault: fault.as_ref().map(|Fault(fault)| fault.as_str()),
        attempt: Some(attempt),
        ms: since(started),
        ..Line::default()
    };
    print(line, decision != "deliver");
}

/// The origin's status for an event.
async fn deliver(isolate: &Isolate, event: &Event<'_>) -> Result<u16, Fault> {
    let body = match &event.body {
        Body::Text(text) => Uint8Array::from(text.as_bytes()),
        Body::Gzip(text) => {
            let bytes = compressed(text).ok_or_else(|| Fault("the event's body is not base64".to_owned()))?;
            runtime::gunzip(&bytes).await?
        }
    };
    let request = OriginRequest::sign(&isolate.settings, &event.path, &body.to_vec(), now_seconds());
    let answer = runtime::post(&request, &event.content_type, &event.delivery, body.as_ref(), LIMIT_MS).await?;
    Ok(answer.status())
}
