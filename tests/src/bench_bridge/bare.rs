//! The bare proxy: two sockets of `tokio-tungstenite`, and the audio of one re-wrapped for the other by splicing text.
//!
//! It knows no states, keeps no record, places no marks and never gives up on anything: the least that any bridge has
//! to do for a frame. Its sockets are set up as well as the bridge's.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{accept_async_with_config, client_async_with_config};

use super::line::between;
use crate::stack::process::{Plan, Process};

const START_LIMIT: Duration = Duration::from_secs(10);

/// Enough for a message of either side. Tungstenite clears it before every read.
const READ_BUFFER: usize = 4096;

const SESSION: &str = concat!(
    r#"{"type":"session.update","session":{"type":"realtime","audio":{"#,
    r#""input":{"format":{"type":"audio/pcmu"}},"output":{"format":{"type":"audio/pcmu"}}}}}"#
);
const SPEAK: &str = r#"{"type":"response.create"}"#;

/// Runs it as a process of its own and waits until it listens.
pub(super) async fn start(port: u16, model: SocketAddr) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-proxy", &port.to_string(), &model.to_string()]).env("TOKIO_WORKER_THREADS", "1");
    let scratch = crate::stack::scratch::Scratch::new("bare-proxy")?;
    let plan = Plan { name: "the bare proxy", log: &scratch.join("log"), stop: Signal::KILL, remove: None };
    let process = Process::spawn(command, &plan)?;
    let deadline = tokio::time::Instant::now() + START_LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "{}", process.failure("does not listen"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(process)
}

/// Serves until it is killed.
pub async fn serve(port: u16, model: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (caller, _) = listener.accept().await?;
        // An error is the end of a call.
        tokio::spawn(async move { proxy(caller, model).await.is_ok() });
    }
}

async fn proxy(caller: TcpStream, model: SocketAddr) -> anyhow::Result<()> {
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    caller.set_nodelay(true)?;
    let mut caller = accept_async_with_config(caller, Some(config)).await?;
    let stream = loop {
        let Some(message) = caller.next().await else { return Ok(()) };
        if let Some(stream) = message?.to_text().ok().and_then(|text| between(text, r#""streamSid":""#)) {
            break stream.to_owned();
        }
    };
    let model = TcpStream::connect(model).await?;
    model.set_nodelay(true)?;
    let (mut model, _) = client_async_with_config("ws://model/v1/realtime", model, Some(config)).await?;
    model.send(Message::text(SESSION)).await?;
    model.send(Message::text(SPEAK)).await?;
    loop {
        tokio::select! {
            message = caller.next() => {
                let Some(message) = message else { return Ok(()) };
                if let Message::Text(text) = message?
                    && let Some(audio) = between(&text, r#""payload":""#)
                {
                    let text = [r#"{"type":"input_audio_buffer.append","audio":""#, audio, r#""}"#].concat();
                    model.send(Message::text(text)).await?;
                }
            }
            message = model.next() => {
                let Some(message) = message else { return Ok(()) };
                if let Message::Text(text) = message?
                    && text.starts_with(r#"{"type":"response.output_audio.delta""#)
                    && let Some(audio) = between(&text, r#""delta":""#)
                {
                    let head = r#"{"event":"media","streamSid":""#;
                    let text = [head, &stream, r#"","media":{"payload":""#, audio, r#""}}"#].concat();
                    caller.send(Message::text(text)).await?;
                }
            }
        }
    }
}
