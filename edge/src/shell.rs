//! What `entry.js` sees of the machine, and the consumer of the queue.
//!
//! The entry does the I/O of a webhook and calls these functions, which return at once. It was the fastest of the ways
//! that were measured, by far (`make bench-edge`), and a panic in here reaches it as an exception.

mod isolate;
pub mod queue;
mod runtime;

use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::{Date, Env, console_error, console_log};
// As in `runtime`.
#[allow(unused_imports)]
use worker::{js_sys, wasm_bindgen, wasm_bindgen_futures};

use self::isolate::Isolate;
use crate::head::Head;
use crate::log::Line;
use crate::step::Step;
use crate::visit::{Printed, Visit, Worker};

/// One request, for as long as it is being served. Each method tells what happened and returns the next step.
#[wasm_bindgen(js_name = Visit, wasm_bindgen = worker::wasm_bindgen)]
pub struct JsVisit {
    visit: Visit,
    first: Option<Step>,
}

/// Begins a visit. `head` is as [`crate::head`] describes it, `now` in unix milliseconds.
#[wasm_bindgen]
pub fn begin(head: String, env: &Env, now: f64) -> JsVisit {
    isolate::find_metrics(env);
    let isolate = Isolate::of(env);
    let worker = Worker { settings: isolate.map(|isolate| isolate.settings.clone()), version: &isolate::version(env) };
    let (visit, first) = Visit::begin(Head::new(head), &worker, ms(now));
    JsVisit { visit, first: Some(first) }
}

/// What a request's address counts as: see [`crate::source`].
#[wasm_bindgen]
pub fn source(address: &str) -> String {
    crate::source::source(address)
}

#[wasm_bindgen(js_class = Visit, wasm_bindgen = worker::wasm_bindgen)]
impl JsVisit {
    /// The first step.
    pub fn first(&mut self) -> String {
        let first = self.first.take().unwrap_or_else(Step::out_of_order);
        self.render(&first)
    }

    /// The body was read.
    pub fn body(&mut self, body: Vec<u8>, now: f64) -> String {
        let step = self.visit.body(body, ms(now));
        self.render(&step)
    }

    /// The body is longer than it may be, or could not be read.
    #[wasm_bindgen(js_name = noBody)]
    pub fn no_body(&mut self, too_long: bool) -> String {
        let step = self.visit.no_body(too_long);
        self.render(&step)
    }

    /// The replica has this under the key, or nothing.
    pub fn found(&mut self, value: Option<String>, now: f64) -> String {
        let step = self.visit.route(Ok(value), ms(now));
        self.render(&step)
    }

    /// The replica did not answer.
    #[wasm_bindgen(js_name = notFound)]
    pub fn not_found(&mut self, fault: String, now: f64) -> String {
        let step = self.visit.route(Err(fault), ms(now));
        self.render(&step)
    }

    /// The refusal was counted.
    pub fn counted(&mut self, within_limit: bool, now: f64) -> String {
        let step = self.visit.counted(within_limit, ms(now));
        self.render(&step)
    }

    /// The origin answered.
    pub fn answered(&mut self, status: u16, now: f64) -> String {
        let step = self.visit.origin(Ok(status), ms(now));
        self.render(&step)
    }

    /// The origin did not answer.
    #[wasm_bindgen(js_name = notAnswered)]
    pub fn not_answered(&mut self, fault: String, now: f64) -> String {
        let step = self.visit.origin(Err(fault), ms(now));
        self.render(&step)
    }

    /// The body was compressed.
    pub fn compressed(&mut self, bytes: &[u8], now: f64) -> String {
        let step = self.visit.compressed(bytes, ms(now));
        self.render(&step)
    }

    /// The queue has the event.
    pub fn kept(&mut self, now: f64) -> String {
        let step = self.visit.kept(Ok(()), ms(now));
        self.render(&step)
    }

    /// The queue does not have the event.
    #[wasm_bindgen(js_name = notKept)]
    pub fn not_kept(&mut self, fault: String, now: f64) -> String {
        let step = self.visit.kept(Err(fault), ms(now));
        self.render(&step)
    }

    /// The origin was not told of the call that is coming.
    #[wasm_bindgen(js_name = notAnnounced)]
    pub fn not_announced(&mut self, fault: &str, now: f64) {
        self.visit.not_announced(fault, ms(now));
        self.print();
    }

    fn render(&mut self, step: &Step) -> String {
        self.print();
        step.render()
    }

    fn print(&mut self) {
        if let Some(point) = self.visit.take_point() {
            isolate::measure(point);
        }
        match self.visit.take_line() {
            Some(Printed { text, is_error: true }) => console_error!("{text}"),
            Some(Printed { text, is_error: false }) => console_log!("{text}"),
            None => {}
        }
    }
}

/// JavaScript's clock: a whole number far below 2^53, which no cast changes.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds since 1970")]
const fn ms(now: f64) -> u64 {
    now as u64
}

fn print(line: Line<'_>, is_error: bool) {
    if is_error {
        console_error!("{}", line.render());
    } else {
        console_log!("{}", line.render());
    }
}

fn now_ms() -> u64 {
    Date::now().as_millis()
}

fn now_seconds() -> u64 {
    std::time::Duration::from_millis(now_ms()).as_secs()
}

fn since(started: u64) -> u64 {
    now_ms().saturating_sub(started)
}
