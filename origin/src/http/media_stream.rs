//! `GET /media-stream`: Twilio's audio socket.
//!
//! Not axum's own extractor: it hides the connection behind three layers, each of which every frame would pass both ways.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::bridge::{pump, stream};
use crate::http::problem::{Code, Problem};
use crate::{App, websocket};

/// Twilio's messages are some 400 bytes; OpenAI's own example allows as much.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The media stream's route.
pub fn router() -> Router<Arc<App>> {
    Router::new().route("/media-stream", get(answer))
}

async fn answer(State(app): State<Arc<App>>, mut request: Request) -> Response {
    if app.shutdown.is_cancelled() {
        // Twilio takes it for a stream that ended, and asks how the call goes on.
        return Problem::new(Code::Draining, "The origin is shutting down.").into_response();
    }
    let answer = match create_response_with_body(&request, Body::empty) {
        Ok(answer) => answer,
        Err(error) => return Problem::invalid(error.to_string()).into_response(),
    };
    let upgrading = hyper::upgrade::on(&mut request);
    // The process waits for its calls before it ends.
    app.tasks.clone().spawn(async move {
        // Twilio, or a proxy before us, went away; or it was no connection that can be upgraded.
        if let Some(socket) = upgraded(upgrading).await {
            stream::serve(app, socket).await;
        }
    });
    answer
}

async fn upgraded(upgrading: OnUpgrade) -> Option<pump::CallerSocket> {
    let connection = upgrading.await.ok()?;
    let parts = upgrade::downcast::<TokioIo<TcpStream>>(connection).ok()?;
    let config = websocket::config(MAX_MESSAGE_BYTES);
    let (tcp, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
    Some(WebSocketStream::from_partially_read(tcp, read, Role::Server, Some(config)).await)
}
