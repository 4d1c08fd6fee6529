//! One end of a WebSocket for the load: frames by tungstenite's headers, everything else by hand and without waiting,
//! since the load may not cost more than what it loads.

use std::io::{self, Cursor};
use std::ops::Range;

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// What stands after `key` up to the next quotation mark.
pub(super) fn between<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let start = text.find(key)? + key.len();
    let rest = text.get(start..)?;
    rest.get(..rest.find('"')?)
}

/// Who is at this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Masks what it sends, with a mask of zeros: the other side has the work, this one has not.
    Client,
    Server,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Sender {
    end: End,
    out: Vec<u8>,
    /// How much of `out` the kernel has taken.
    taken: usize,
}

impl Sender {
    pub(super) fn new(end: End) -> Self {
        Self { end, out: Vec::new(), taken: 0 }
    }

    /// Sends a text message, or keeps what does not fit for the next time.
    pub(super) fn send(&mut self, stream: &TcpStream, text: &[&str]) -> io::Result<()> {
        self.frame(OpCode::Data(Data::Text), text);
        self.push(stream)
    }

    /// Answers a ping.
    pub(super) fn pong(&mut self, stream: &TcpStream, payload: &str) -> io::Result<()> {
        self.frame(OpCode::Control(Control::Pong), &[payload]);
        self.push(stream)
    }

    fn frame(&mut self, opcode: OpCode, payload: &[&str]) {
        let mask = (self.end == End::Client).then_some([0; 4]);
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        let length: usize = payload.iter().map(|part| part.len()).sum();
        // A vector takes everything.
        let _ = header.format(length as u64, &mut self.out);
        for part in payload {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    fn push(&mut self, stream: &TcpStream) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.taken..).filter(|rest| !rest.is_empty()) {
            match stream.try_write(rest) {
                Ok(written) => self.taken += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.taken = 0;
        Ok(())
    }
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    Text(&'a str),
    Ping(&'a str),
    Close,
    Other,
}

/// The receiving half.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    buffer: Vec<u8>,
    /// What of the buffer is to be read yet.
    unread: Range<usize>,
}

impl Receiver {
    const READ: usize = 16 * 1024;

    /// Waits for bytes; false when there will be no more.
    pub(super) async fn more(&mut self, stream: &TcpStream) -> io::Result<bool> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        // Grows to the largest message and is not cleared again.
        if self.buffer.len() < self.unread.end + Self::READ {
            self.buffer.resize(self.unread.end + Self::READ, 0);
        }
        loop {
            stream.readable().await?;
            match stream.try_read(self.buffer.get_mut(self.unread.end..).unwrap_or_default()) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.unread.end += read;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next whole message that was received.
    pub(super) fn next(&mut self) -> Option<Received<'_>> {
        let mut cursor = Cursor::new(self.buffer.get(self.unread.clone())?);
        let (header, length) = FrameHeader::parse(&mut cursor).ok().flatten()?;
        let start = self.unread.start + usize::try_from(cursor.position()).ok()?;
        let end = start + usize::try_from(length).ok()?;
        if end > self.unread.end {
            return None;
        }
        self.unread.start = end;
        let payload = self.buffer.get_mut(start..end)?;
        if let Some(mask) = header.mask {
            for four in payload.chunks_mut(4) {
                four.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
            }
        }
        let text = std::str::from_utf8(payload).unwrap_or_default();
        Some(match header.opcode {
            OpCode::Data(Data::Text) => Received::Text(text),
            OpCode::Control(Control::Ping) => Received::Ping(text),
            OpCode::Control(Control::Close) => Received::Close,
            _ => Received::Other,
        })
    }
}
