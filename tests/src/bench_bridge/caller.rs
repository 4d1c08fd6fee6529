//! The phone's side of a call: Twilio's messages, audio every 20 ms, and every mark answered when it has been played.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use shared::stream_token::StreamGrant;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::client_async;
use uuid::Uuid;

use super::frames::{self, Writer};
use super::line::{End, Received, Receiver, Sender, between};
use super::load::{Expected, Load, Paced, Target};
use crate::tandem::{ACCOUNT_SID, EDGE_ORIGIN_SECRET};
use crate::twilio::protocol;

/// 20 ms of mu-law.
pub(super) const FRAME_BYTES: usize = 160;
const FRAME: Duration = Duration::from_millis(20);
const BYTES_PER_MS: u32 = 8;

/// One call.
pub(super) struct Caller {
    stream: TcpStream,
    state: RefCell<State>,
    expected: Expected,
    over: Notify,
}

struct State {
    messages: protocol::Writer,
    audio: Writer,
    sender: Sender,
    /// When all that was received will have been played.
    played: Duration,
    /// Marks that wait for that, with their time.
    marks: VecDeque<(Duration, String)>,
    hears: bool,
}

impl Caller {
    /// Opens a stream and speaks from then on.
    pub(super) async fn call(target: &Target, load: Rc<Load>) -> anyhow::Result<Rc<Self>> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async(format!("ws://{}/media-stream", target.address), stream).await?;
        let stream = socket.into_inner();

        let call = format!("CA{}", Uuid::new_v4().simple());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let token = StreamGrant::new(call.parse()?, target.agent, now).mint(EDGE_ORIGIN_SECRET);
        let mut messages = protocol::Writer::new(ACCOUNT_SID, &call, &format!("MZ{}", Uuid::new_v4().simple()));
        let mut sender = Sender::new(End::Client);
        stream.writable().await?;
        sender.send(&stream, &[&protocol::Writer::connected()])?;
        sender.send(&stream, &[&messages.start(&[("token".to_owned(), token)])])?;

        let state = State {
            messages,
            audio: Writer::new(FRAME_BYTES),
            sender,
            played: Duration::ZERO,
            marks: VecDeque::new(),
            hears: false,
        };
        let caller =
            Rc::new(Self { stream, state: RefCell::new(state), expected: Expected::default(), over: Notify::new() });
        load.pace(Uuid::new_v4().as_bytes()[0].into(), Rc::clone(&caller) as Rc<dyn Paced>);
        tokio::task::spawn_local(hear(Rc::clone(&caller), load));
        Ok(caller)
    }

    /// Whether audio of the model has come.
    pub(super) fn hears(&self) -> bool {
        self.state.borrow().hears
    }

    /// Ends the call as the phone does: with a word, then the socket.
    pub(super) fn hang_up(&self) -> io::Result<()> {
        let State { messages, sender, .. } = &mut *self.state.borrow_mut();
        sender.send(&self.stream, &[&messages.stop()])?;
        self.over.notify_one();
        Ok(())
    }

    fn take(&self, load: &Load, message: &Received<'_>) -> io::Result<()> {
        let State { sender, played, marks, hears, .. } = &mut *self.state.borrow_mut();
        match message {
            Received::Text(text) => {
                let now = load.now();
                if let Some(audio) = between(text, r#""payload":""#) {
                    let bytes = frames::byte_len(audio);
                    *played =
                        now.max(*played) + Duration::from_millis(1) * u32::try_from(bytes).unwrap_or(0) / BYTES_PER_MS;
                    *hears = true;
                    let frame_bytes = usize::try_from(load.delta_ms * BYTES_PER_MS).unwrap_or(0);
                    load.received(&self.expected, frames::read(audio), bytes, frame_bytes);
                } else if let Some(name) = between(text, r#""name":""#) {
                    marks.push_back((now.max(*played), name.to_owned()));
                }
                Ok(())
            }
            Received::Ping(payload) => sender.pong(&self.stream, payload),
            Received::Close => Err(io::ErrorKind::ConnectionReset.into()),
            Received::Other => Ok(()),
        }
    }
}

impl Paced for Caller {
    fn tick(&self, load: &Load, now: Duration) -> io::Result<()> {
        let State { messages, audio, sender, marks, .. } = &mut *self.state.borrow_mut();
        while let Some((_, name)) = marks.pop_front_if(|(due, _)| *due <= now) {
            sender.send(&self.stream, &[&messages.mark(&name)])?;
        }
        if load.is_sending() {
            let timestamp = FRAME * audio.written();
            let message = messages.media(audio.next(load.now()), u64::try_from(timestamp.as_millis()).unwrap_or(0));
            sender.send(&self.stream, &[&message])?;
            load.sent();
        }
        Ok(())
    }
}

/// Reads until one of the sides has ended the call.
async fn hear(caller: Rc<Caller>, load: Rc<Load>) -> io::Result<()> {
    let mut receiver = Receiver::default();
    loop {
        let more = tokio::select! {
            more = receiver.more(&caller.stream) => more?,
            () = caller.over.notified() => false,
        };
        if !more {
            return Ok(());
        }
        while let Some(message) = receiver.next() {
            caller.take(&load, &message)?;
        }
    }
}
