//! The Cloudflare Worker in front of the origin: it verifies a webhook, looks its route up in the replica, and answers,
//! forwards or keeps it.
//!
//! What to do is decided by synchronous functions that know nothing of JavaScript and are tested on the host:
//! [`head`] → [`admit`] → [`decide`] → [`forward`], with [`reply`], [`retry`] and [`log`] for what goes out. `shell` does
//! the I/O around them and could be replaced by a JavaScript entry that calls the same functions.
//!
//! Not here: the rules themselves. Decisions, signatures, tokens and answers are `shared`'s, so that the origin gives
//! the same ones.

// A panic costs at least the request it happens in. Outside tests there is nothing here that can panic.
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
pub mod reply;
pub mod retry;
pub mod settings;

pub mod shell;
