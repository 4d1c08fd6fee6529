//! The Cloudflare Worker in front of the origin: it verifies a webhook, looks its route up in the replica, and answers,
//! forwards or keeps it.
//!
//! [`visit`] is a machine that knows nothing of JavaScript and is tested on the host: it is told what happened (the body
//! came, the replica has this, the origin did not answer) and says what is done next, by [`head`] → [`admit`] →
//! [`decide`] → [`forward`], with [`step`], [`reply`], [`retry`], [`log`] and [`metric`] for what goes out. `entry.js` is the
//! Worker's entry: it does the I/O around the machine, each with a time limit. [`shell`] joins the two, and holds the
//! consumer of the queue.
//!
//! # What is asked of the origin
//!
//! Nothing before a call that the replica has as bridged is answered: one read, and the answer. Once that is on its way
//! the origin is told which call is coming (`POST /twilio/expected`, the voice webhook's body), so that it can open its
//! session with the model while the phone is still being connected; what comes of it is nobody's business. For all that
//! cannot be undone (see [`decide`]) the origin is asked.
//!
//! # What a panic costs
//!
//! Not an event. Rust is built to unwind, so a panic is an exception in `entry.js`, and a trap (out of memory, stack
//! overflow) is one as well. `salvage.js` then puts the event on the queue as it came, unproven, with the headers that
//! prove its sender; the consumer admits it by the same rules ([`salvaged`]). A sender that hangs up ends nothing either:
//! what has arrived is served to its end.
//!
//! # Where the time goes
//!
//! `make bench-edge` measures. Up to its answer a bridged call takes about 240 µs of processor (to tell the origin of it
//! is a request of its own, after that and not counted here), nearly all of it in the runtime: HTTP, the
//! read of the replica (40 µs), the answer, the line of log. Rust has 21 µs of it: 2 for the crossings, 11 for the form
//! and its HMAC-SHA1, 8 for the route, the token, the TwiML and the line. What was learnt on the way:
//!
//! - A promise that Rust awaits costs two closures and their finalizers. So the entry awaits, and Rust is synchronous.
//! - A timer costs 5 to 10 µs, as much as the signature. So a body with a length has none.
//! - A hash in wasm runs at 0.25 GB/s. For a form that is nothing; the 10 KB of an event of Vapi's took 37 µs of it to
//!   sign, and take 9 in the runtime's own, promise included. So the entry signs what is forwarded.
//! - Parsing that event takes 15 µs, no more than `JSON.parse` does.
//!
//! Not here: the rules themselves. Decisions, signatures, tokens and answers are `shared`'s, so that the origin gives
//! the same ones.

// Outside tests there is nothing here that can panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::integer_division,
        clippy::panic,
        clippy::string_slice,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod admit;
pub mod decide;
pub mod forward;
pub mod head;
pub mod log;
pub mod metric;
pub mod reply;
pub mod retry;
pub mod salvaged;
pub mod settings;
pub mod shell;
pub mod source;
pub mod step;
pub mod visit;
