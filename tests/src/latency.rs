//! `sim latency`: how long Twilio waits for its TwiML, and what the bridge adds to each frame of audio.
//!
//! An echo stands in for the model: it sends each piece of the caller's audio back at once. So the way of a frame from
//! the phone to the model and back is timed on one clock, the Twilio simulator's. The same is timed for a bare echo
//! that speaks Twilio's protocol itself; what is left, halved, is the bridge's share in one direction.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use axum::routing::post;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::speech::clip;
use crate::tandem::{Options, Tandem};
use crate::twilio::{Caller, InboundCall, Number, Purpose, What};

/// Calls of which the TwiML is timed.
const CALLS: usize = 50;
/// How long a call speaks to an echo.
const TALK: Duration = Duration::from_secs(15);
const CALL_LIMIT: Duration = Duration::from_mins(1);
const BARE_NUMBER: &str = "+15550100099";
const BARE_URL: &str = "https://bare.tandem.test";

/// Measures and prints.
pub async fn run() -> anyhow::Result<()> {
    let model = listen(Echo::Model).await?;
    let origin_env = vec![("OPENAI_REALTIME_URL".to_owned(), format!("ws://{model}/v1/realtime"))];
    let mut tandem = Tandem::start(Options { origin_env, ..Options::default() }).await?;

    let reception = tandem.agent("Reception")?.number.clone();
    let night_line = tandem.agent("Night line")?.number.clone();
    println!("From Twilio's request to the whole TwiML, {CALLS} calls each, one after the other:");
    print("bridged, decided at the edge", &answers(&tandem, &night_line).await?);
    print("handed to Vapi, through origin and Vapi", &answers(&tandem, &reception).await?);

    serve_bare_number(&tandem).await?;
    println!("A 20 ms frame from the phone to an echo and back, {} s of speech each:", TALK.as_secs());
    let bare = round_trips(&tandem, BARE_NUMBER).await?;
    print("bare echo", &bare);
    let bridged = round_trips(&tandem, &night_line).await?;
    print("through the bridge", &bridged);
    let added = |share: f64| (at(&bridged, share).saturating_sub(at(&bare, share))) / 2;
    println!("Added by the bridge in one direction: median {} µs, 99 % {} µs.", added(0.5), added(0.99));
    tandem.stop().await
}

/// Twilio's waits for the answer to its voice webhook, in microseconds, sorted.
async fn answers(tandem: &Tandem, to: &str) -> anyhow::Result<Vec<u64>> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let caller = Caller::new().wait_ms(100).hang_up();
        let handle = tandem.twilio.call(InboundCall { to: to.to_owned(), caller, ..InboundCall::default() });
        handle.wait_ended(CALL_LIMIT).await?;
        times.extend(handle.trace().iter().find_map(|entry| match entry.what {
            What::Webhook { purpose: Purpose::Voice, status: Some(200), took_us, .. } => Some(took_us),
            _ => None,
        }));
    }
    ensure!(times.len() == CALLS, "{} of {CALLS} calls were answered", times.len());
    times.sort_unstable();
    Ok(times)
}

/// How long each frame of a call took to an echo and back, in microseconds, sorted.
async fn round_trips(tandem: &Tandem, to: &str) -> anyhow::Result<Vec<u64>> {
    let words = clip("caller-appointment").mulaw;
    let speech: Vec<u8> = words.iter().copied().cycle().take(8 * TALK.as_millis() as usize).collect();
    let caller = Caller::new().wait_ms(500).say(speech).wait_ms(500).hang_up();
    let handle = tandem.twilio.call(InboundCall { to: to.to_owned(), caller, ..InboundCall::default() });
    handle.wait_ended(CALL_LIMIT).await?;
    let Some(stream) = handle.stream() else { anyhow::bail!("no stream:\n{}", handle.trace_text()) };
    // The last frames may still be on their way when the caller hangs up.
    let (sent, back) = (stream.frames_sent_us.len(), stream.chunks.len());
    ensure!(back + 5 >= sent && back <= sent, "{sent} frames were sent, {back} came back:\n{}", handle.trace_text());
    // The first second is left out: held audio comes in one burst.
    let pairs = stream.frames_sent_us.iter().zip(&stream.chunks).skip(50);
    let mut times: Vec<u64> = pairs.map(|(sent, chunk)| chunk.arrived_us.saturating_sub(*sent)).collect();
    times.sort_unstable();
    Ok(times)
}

fn print(what: &str, sorted: &[u64]) {
    let figure = |share| {
        let us = at(sorted, share);
        format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
    };
    println!("  {what:<40} median {}, 90 % {}, 99 % {}", figure(0.5), figure(0.9), figure(0.99));
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "small counts"
)]
fn at(sorted: &[u64], share: f64) -> u64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// A number whose calls go straight to an echo that speaks Twilio's protocol.
async fn serve_bare_number(tandem: &Tandem) -> anyhow::Result<()> {
    let echo = listen(Echo::Twilio).await?;
    let twiml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Connect>\
                 <Stream url=\"wss://echo.tandem.test/\"/></Connect></Response>";
    let answer = post(move || async move { ([("content-type", "text/xml")], twiml) });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    tandem.hosts.map("https://echo.tandem.test", &format!("http://{echo}"));
    tandem.hosts.map(BARE_URL, &format!("http://{}", listener.local_addr()?));
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", answer)).await });
    tandem.twilio.set_number(Number::new(BARE_NUMBER).voice_url(&format!("{BARE_URL}/")));
    Ok(())
}

/// Whose protocol an echo speaks.
#[derive(Clone, Copy)]
enum Echo {
    Model,
    Twilio,
}

async fn listen(echo: Echo) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A frame that waits for another would be timed as well.
                let _ = socket.set_nodelay(true);
                if let Ok(socket) = accept_async(socket).await {
                    serve(socket, echo).await;
                }
            });
        }
    });
    Ok(address)
}

async fn serve(mut socket: WebSocketStream<TcpStream>, echo: Echo) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let Ok(event) = serde_json::from_str::<Value>(&text) else { continue };
        let answer = match echo {
            Echo::Model => model_answer(&event),
            Echo::Twilio => twilio_answer(&event),
        };
        if let Some(answer) = answer
            && socket.send(Message::text(answer.to_string())).await.is_err()
        {
            return;
        }
    }
}

fn model_answer(event: &Value) -> Option<Value> {
    match event["type"].as_str()? {
        "session.update" => Some(json!({ "type": "session.updated", "session": event["session"] })),
        "input_audio_buffer.append" => Some(json!({
            "type": "response.output_audio.delta", "response_id": "resp_echo", "item_id": "item_echo",
            "output_index": 0, "content_index": 0, "delta": event["audio"],
        })),
        _ => None,
    }
}

fn twilio_answer(event: &Value) -> Option<Value> {
    (event["event"] == "media").then(|| {
        json!({ "event": "media", "streamSid": event["streamSid"], "media": { "payload": event["media"]["payload"] } })
    })
}
