//! Pieces of audio that can be told apart: a number, a sender and a time in the first bytes of each.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Bytes of a numbered head: a multiple of three, so that its base64 text stands for itself.
const HEAD: usize = 18;
const HEAD_TEXT: usize = HEAD / 3 * 4;
const MAGIC: [u8; 4] = *b"\xf1TDM";

/// What a piece of audio says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    /// Place in its sender's stream, from 0.
    pub(super) number: u32,
    /// When it was sent, on the load's clock.
    pub(super) sent: Duration,
}

/// Writes the audio of one stream.
#[derive(Debug)]
pub(super) struct Writer {
    next: u32,
    piece: Vec<u8>,
}

impl Writer {
    /// Pieces of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        // A sound rather than silence.
        Self { next: 0, piece: (0..bytes).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect() }
    }

    /// How many were written.
    pub(super) fn written(&self) -> u32 {
        self.next
    }

    /// The next piece.
    pub(super) fn next(&mut self, now: Duration) -> &[u8] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&self.next.to_be_bytes());
        // Half a thousand years.
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        head[8..16].copy_from_slice(&nanos.to_be_bytes());
        self.next += 1;
        self.piece[..HEAD].copy_from_slice(&head);
        &self.piece
    }
}

/// Reads the head of a piece; `None` for audio that none of ours begins.
pub(super) fn read(text: &str) -> Option<Numbered> {
    let mut head = [0; HEAD];
    let length = BASE64_STANDARD.decode_slice(text.get(..HEAD_TEXT)?, &mut head).ok()?;
    if length != HEAD || head[..4] != MAGIC {
        return None;
    }
    let number = u32::from_be_bytes(head[4..8].try_into().ok()?);
    let sent = Duration::from_nanos(u64::from_be_bytes(head[8..16].try_into().ok()?));
    Some(Numbered { number, sent })
}

/// Bytes that base64 text stands for.
pub(super) fn byte_len(text: &str) -> usize {
    let padding = text.len() - text.trim_end_matches('=').len();
    text.len() / 4 * 3 - padding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_numbered_and_of_the_length_asked_for() {
        for bytes in [160, 1600] {
            let mut writer = Writer::new(bytes);
            for number in 0..3 {
                let sent = Duration::from_micros(u64::from(number) * 20_000);
                let text = BASE64_STANDARD.encode(writer.next(sent));
                assert_eq!((byte_len(&text), read(&text)), (bytes, Some(Numbered { number, sent })));
            }
            assert_eq!(writer.written(), 3);
        }
    }

    #[test]
    fn other_audio_is_no_piece() {
        assert_eq!(read(&BASE64_STANDARD.encode([0xff; 160])), None);
        assert_eq!(read("//8="), None);
        assert_eq!(read(""), None);
    }
}
