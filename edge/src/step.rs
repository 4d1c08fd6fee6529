//! What a visit asks of its surroundings, and how `entry.js` is told: as one text, because every value that crosses
//! between wasm and JavaScript costs more than writing and reading a line.
//!
//! Words of one line each, a blank line, and the rest: what may be long or hold line breaks.

use crate::admit::MAX_BODY_BYTES;
use crate::reply::{Problem, Reply};

/// How long a sender may take to send its body, in milliseconds.
const BODY_LIMIT_MS: u32 = 10_000;
/// How long the replica may take, in milliseconds; a cold read takes a few hundred.
pub const REPLICA_LIMIT_MS: u32 = 1_000;
/// How long the queue may take, in milliseconds. It follows a failed delivery, and Twilio gives up after 15 s in all.
const QUEUE_LIMIT_MS: u32 = 5_000;
/// How long counting a refusal may take, in milliseconds. Without the count it is refused all the same.
const COUNT_LIMIT_MS: u32 = 500;
/// How long the origin may take to hear of a call that is coming, in milliseconds. Later the stream is there itself.
pub const ANNOUNCE_LIMIT_MS: u32 = 2_000;

/// The request's body on its way to the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// The time of the signature, in unix seconds.
    pub at: u64,
    /// What is signed before the body.
    pub signed: String,
    /// The body's media type.
    pub content_type: String,
    /// `Tandem-Delivery`.
    pub delivery: String,
    /// How long the origin may take, in milliseconds.
    pub limit_ms: u32,
}

impl Post {
    fn render(&self) -> String {
        let Self { url, at, signed, content_type, delivery, limit_ms } = self;
        format!("{url}\n{limit_ms}\n{content_type}\n{delivery}\n{at}\n{signed}")
    }
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the request's body.
    Body,
    /// Read a route from the replica.
    Look {
        /// Its key.
        key: String,
    },
    /// Count a refusal against where it came from.
    Count,
    /// Post the request's body to the origin.
    Post(Post),
    /// Answer this, then post the request's body to the origin. Nobody waits for what comes of that.
    Announce(Reply, Post),
    /// Answer what the origin answered.
    PassOn,
    /// Compress the request's body.
    Compress,
    /// Put a message on the queue.
    Keep {
        /// The message.
        message: String,
    },
    /// Answer this.
    Answer(Reply),
}

impl Step {
    /// The answer to a machine that was told something which it did not wait for.
    pub fn out_of_order() -> Self {
        Self::Answer(Problem::Unavailable.into())
    }

    /// The step as `entry.js` reads it.
    pub fn render(&self) -> String {
        match self {
            Self::Body => format!("body\n{MAX_BODY_BYTES}\n{BODY_LIMIT_MS}\n\n"),
            Self::Look { key } => format!("look\n{REPLICA_LIMIT_MS}\n\n{key}"),
            Self::Count => format!("count\n{COUNT_LIMIT_MS}\n\n"),
            Self::Post(post) => format!("post\n{}\n\n", post.render()),
            Self::Announce(Reply { content_type, body, .. }, post) => {
                format!("announce\n{content_type}\n{}\n\n{body}", post.render())
            }
            Self::PassOn => "pass-on\n\n".to_owned(),
            Self::Compress => "compress\n\n".to_owned(),
            Self::Keep { message } => format!("keep\n{QUEUE_LIMIT_MS}\n\n{message}"),
            Self::Answer(Reply { status, content_type: "", .. }) => format!("answer\n{status}\n\n"),
            Self::Answer(Reply { status, content_type, header: None, body }) => {
                format!("answer\n{status}\n{content_type}\n\n{body}")
            }
            Self::Answer(Reply { status, content_type, header: Some((name, value)), body }) => {
                format!("answer\n{status}\n{content_type}\n{name}\n{value}\n\n{body}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_entry_reads_them() {
        assert_eq!(Step::Answer(Reply::nothing()).render(), "answer\n204\n\n");
        assert_eq!(Step::Answer(Reply::twiml("<a>\n\n</a>".into())).render(), "answer\n200\ntext/xml\n\n<a>\n\n</a>");
        let refused = Step::Answer(Problem::Unauthorized.into()).render();
        assert!(
            refused.starts_with("answer\n401\napplication/problem+json\nwww-authenticate\nBearer\n\n{"),
            "{refused}"
        );
        assert_eq!(Step::Look { key: "number:+15550100".into() }.render(), "look\n1000\n\nnumber:+15550100");
        let post = Post {
            url: "https://o.example/x?y=1".into(),
            at: 7,
            signed: "7.POST./x?y=1.".into(),
            content_type: "a/b".into(),
            delivery: "d".into(),
            limit_ms: 3,
        };
        let words = "https://o.example/x?y=1\n3\na/b\nd\n7\n7.POST./x?y=1.";
        assert_eq!(Step::Post(post.clone()).render(), format!("post\n{words}\n\n"));
        let announce = Step::Announce(Reply::twiml("<a/>".into()), post).render();
        assert_eq!(announce, format!("announce\ntext/xml\n{words}\n\n<a/>"));
    }
}
