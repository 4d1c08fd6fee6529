//! One bridged call: audio between Twilio Media Streams and OpenAI Realtime.
//!
//! [`call`] is the pure state machine: it takes what the two sockets say and returns what to send, record and run. It
//! knows no socket and no clock. [`pump`] is the shell that owns both sockets and feeds it. Audio is never decoded: the
//! base64 text of mu-law passes from one JSON message into the other.
//!
//! # Where the time goes
//!
//! `make bench-bridge` sets a call beside a bare proxy that only re-wraps the same frames. Half of what a call costs is in
//! the kernel, and that is the proxy's as well: a read, a write and a share of a wake-up for each frame. So nothing here
//! may read or write once more than it must: both sockets are read dry before anything is written, and not looked at again
//! until something wakes the call; a mark goes out in one write with the audio before it, and there is one for 160 ms at
//! most, since each comes back as a message to be read. The rest is spread thin, none of it above 4 %: the sockets'
//! readiness, framing, copying, allocating the two texts of a frame; `scan` stands in for a parser. What would be felt at
//! once: buffers of 128 KiB on the sockets (they are cleared before every read), axum's own WebSocket (three layers around
//! the connection), a timer set anew for a frame, asking all that a call waits for at every frame instead of only what has
//! news.
//!
//! A call's memory is its two sockets' buffers, the last half second of the caller's sound, its settings and the state of
//! what is awaited: what is done once, before and after the stream, is boxed and gone meanwhile.

mod alarm;
pub mod beginning;
pub mod call;
pub mod openai;
pub mod playback;
pub mod prepared;
pub mod pump;
pub mod record;
pub mod responses;
mod scan;
pub mod session;
pub mod sessions;
pub mod stream;
pub mod transcript;
pub mod twilio;
pub mod waits;
mod watch;
pub mod wire;
