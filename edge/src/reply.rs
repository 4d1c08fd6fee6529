//! What the Worker answers by itself: TwiML, JSON, nothing, or a problem (RFC 9457).

use serde_json::{Value, json};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Empty when there is no body.
    pub content_type: &'static str,
    /// One more header, if the status asks for it.
    pub header: Option<(&'static str, &'static str)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// A document for Twilio.
    pub const fn twiml(document: String) -> Self {
        Self { status: 200, content_type: "text/xml", header: None, body: document }
    }

    /// JSON with status 200.
    pub fn json(value: &Value) -> Self {
        Self::json_with_status(200, value)
    }

    /// JSON with another status.
    pub fn json_with_status(status: u16, value: &Value) -> Self {
        Self { status, content_type: "application/json", header: None, body: value.to_string() }
    }

    /// Done, and nothing to say.
    pub const fn nothing() -> Self {
        Self { status: 204, content_type: "", header: None, body: String::new() }
    }
}

/// Why a request is not served. Says nothing that would help to forge one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No such path.
    NotFound,
    /// The path wants another method.
    MethodNotAllowed {
        /// The one that it wants.
        allowed: &'static str,
    },
    /// The body is longer than the path's sender ever sends.
    BodyTooLarge,
    /// The body is not of the path's media type.
    UnsupportedMediaType,
    /// The body broke off or came too slowly.
    UnreadableBody,
    /// Not a form about a call.
    MalformedForm,
    /// Not a Vapi server message.
    MalformedMessage,
    /// Not signed by Twilio for this URL.
    SignatureInvalid,
    /// Not proven to be from Vapi.
    Unauthorized,
    /// Its source has been refused too often.
    TooManyRefusals,
    /// The event could not be delivered or kept: the sender has to repeat it.
    Unavailable,
    /// The Worker's own settings are incomplete.
    Misconfigured,
}

impl Problem {
    /// Stable word for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UnreadableBody => "unreadable_body",
            Self::MalformedForm => "malformed_form",
            Self::MalformedMessage => "malformed_message",
            Self::SignatureInvalid => "signature_invalid",
            Self::Unauthorized => "unauthorized",
            Self::TooManyRefusals => "too_many_refusals",
            Self::Unavailable => "unavailable",
            Self::Misconfigured => "misconfigured",
        }
    }

    /// HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::UnreadableBody | Self::MalformedForm | Self::MalformedMessage => 400,
            Self::Unauthorized => 401,
            Self::SignatureInvalid => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::BodyTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::TooManyRefusals => 429,
            Self::Misconfigured => 500,
            Self::Unavailable => 503,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::NotFound => "There is nothing at this path",
            Self::MethodNotAllowed { .. } => "The path wants another method",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body is of another media type than this path takes",
            Self::UnreadableBody => "The body could not be read",
            Self::MalformedForm => "The body is not a form about a call",
            Self::MalformedMessage => "The body is not a Vapi server message",
            Self::SignatureInvalid => "The request is not signed for this URL",
            Self::Unauthorized => "The request does not prove who sent it",
            Self::TooManyRefusals => "Too many requests from here were refused",
            Self::Unavailable => "The event could not be kept; send it again",
            Self::Misconfigured => "The service is not set up completely",
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let header = match problem {
            Problem::MethodNotAllowed { allowed } => Some(("allow", allowed)),
            Problem::Unauthorized => Some(("www-authenticate", "Bearer")),
            // The period of the limit in wrangler.toml, in seconds.
            Problem::TooManyRefusals => Some(("retry-after", "60")),
            Problem::Unavailable => Some(("retry-after", "5")),
            _ => None,
        };
        let body = json!({
            "type": "about:blank",
            "title": problem.title(),
            "status": problem.status(),
            "code": problem.code(),
        });
        Self { status: problem.status(), content_type: "application/problem+json", header, body: body.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_as_it_is_sent() {
        let reply = Reply::from(Problem::MethodNotAllowed { allowed: "POST" });
        assert_eq!((reply.status, reply.content_type), (405, "application/problem+json"));
        assert_eq!(reply.header, Some(("allow", "POST")));
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(body["code"], "method_not_allowed");
        assert_eq!(body["status"], 405);
    }
}
