//! How both sockets of a call are set up.

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Of what is read and of what is written. The library clears what is free of the first before every read, so its default
/// of 128 KiB would double what a call costs; this holds some messages of audio. What is longer is read and written in
/// turns.
const BUFFER_BYTES: usize = 4096;

/// For a socket whose other side sends messages of this length at most.
pub(crate) fn config(max_message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes))
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
}
