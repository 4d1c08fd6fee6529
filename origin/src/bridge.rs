//! One bridged call: audio between Twilio Media Streams and OpenAI Realtime.
//!
//! [`call`] is the pure state machine: it takes what the two sockets say and returns what to send, record and run. It
//! knows no socket and no clock. [`pump`] is the shell that owns both sockets and feeds it. Audio is never decoded: the
//! base64 text of mu-law passes from one JSON message into the other.

mod alarm;
pub mod call;
pub mod openai;
pub mod playback;
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
