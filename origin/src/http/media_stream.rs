//! `GET /media-stream`: Twilio's audio socket.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::App;
use crate::bridge::stream;
use crate::http::problem::{Code, Problem};

/// Twilio's messages are some 400 bytes; OpenAI's own example allows as much.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Of what is read and of what is written. The WebSocket library clears what is free of the first before every read,
/// so its default of 128 KiB would double what a call costs; this holds some messages of audio. What is longer is read
/// and written in turns.
const BUFFER_BYTES: usize = 4096;

/// The media stream's route.
pub fn router() -> Router<Arc<App>> {
    Router::new().route("/media-stream", get(upgrade))
}

async fn upgrade(State(app): State<Arc<App>>, upgrade: WebSocketUpgrade) -> Response {
    if app.shutdown.is_cancelled() {
        // Twilio takes it for a stream that ended, and asks how the call goes on.
        return Problem::new(Code::Draining, "The origin is shutting down.").into_response();
    }
    upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .on_upgrade(move |socket| {
            // The process waits for its calls before it ends.
            let tasks = app.tasks.clone();
            tasks.track_future(stream::serve(app, socket))
        })
}
