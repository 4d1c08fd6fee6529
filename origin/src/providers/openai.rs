//! The way to OpenAI Realtime: one authorised WebSocket a session.

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::config::OpenAi;
use crate::websocket;

/// A session's socket.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The largest event is the whole session's or a response's; audio comes in pieces far smaller.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no key.
    #[error("OpenAI is not configured")]
    NotConfigured,
    /// OpenAI answered with something else than an upgrade.
    #[error("OpenAI refused the session with status {status} and code {code:?}")]
    Refused {
        /// HTTP.
        status: u16,
        /// OpenAI's word for why.
        code: Option<String>,
    },
    /// No connection, or the key cannot stand in a header.
    #[error("OpenAI cannot be reached")]
    Unreachable(#[source] Box<tungstenite::Error>),
}

/// Opens a session's socket. It takes as long as it takes: the caller limits it.
pub async fn connect(config: Option<&OpenAi>, model: &str) -> Result<Socket, ConnectError> {
    let unreachable = |error: tungstenite::Error| match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let code = serde_json::from_slice(body).ok().and_then(|body: Refusal| body.error.code);
            ConnectError::Refused { status: response.status().as_u16(), code }
        }
        error => ConnectError::Unreachable(Box::new(error)),
    };
    let config = config.ok_or(ConnectError::NotConfigured)?;
    let mut url = config.realtime_url.clone();
    url.query_pairs_mut().append_pair("model", model);
    let mut request = url.as_str().into_client_request().map_err(unreachable)?;
    let mut key = HeaderValue::from_str(&format!("Bearer {}", config.api_key.expose_secret()))
        .map_err(|error| unreachable(tungstenite::Error::HttpFormat(error.into())))?;
    key.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, key);

    // Nagle's algorithm is off: audio is sent in small pieces that must not wait for each other.
    let connecting = connect_async_with_config(request, Some(websocket::config(MAX_MESSAGE_BYTES)), true);
    let (socket, _) = connecting.await.map_err(unreachable)?;
    Ok(socket)
}

/// The body of a refused handshake.
#[derive(Deserialize)]
struct Refusal {
    error: RefusalError,
}

#[derive(Deserialize)]
struct RefusalError {
    code: Option<String>,
}
