//! TwiML documents, written as Twilio's own helper library writes them.

use std::fmt::Write;

/// A verb of a response. Only those that we use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Connects the call to a bidirectional media stream and blocks until that ends.
    ConnectStream {
        /// `wss://` URL without a query.
        url: String,
        /// Absolute URL that hears of the stream's start, end and faults.
        status_callback: String,
        /// Custom parameters, delivered in the stream's `start` message.
        parameters: Vec<(&'static str, String)>,
    },
    /// Speaks a text.
    Say(String),
    /// Waits silently, in seconds.
    Pause(u32),
    /// Continues with the document at another URL.
    Redirect(String),
    /// Presses keys towards the other side of the call: digits, `*`, `#`, and `w` for half a second.
    PlayDigits(String),
    /// Puts the call through to somebody.
    Dial {
        /// To whom.
        target: DialTarget,
        /// Whose number it shows there; without it the caller's.
        caller_id: Option<String>,
        /// Where the outcome is posted; without it the next verb runs.
        action: Option<String>,
        /// Seconds of ringing before giving up.
        timeout_seconds: u32,
    },
    /// Ends the call.
    Hangup,
}

/// Whom a call is put through to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialTarget {
    /// A telephone.
    Number {
        /// E.164.
        number: String,
        /// Keys to press once it has answered.
        send_digits: Option<String>,
    },
    /// A SIP address.
    Sip(String),
}

impl DialTarget {
    /// A telephone without an extension.
    pub fn number(number: impl Into<String>) -> Self {
        Self::Number { number: number.into(), send_digits: None }
    }
}

/// Renders a document; no verbs at all is the empty answer to a callback.
pub fn render(verbs: &[Verb]) -> String {
    let mut xml = String::from(r#"<?xml version="1.0" encoding="UTF-8"?>"#);
    if verbs.is_empty() {
        xml.push_str("<Response/>");
        return xml;
    }
    xml.push_str("<Response>");
    for verb in verbs {
        // Writing to a String cannot fail.
        let _ = write_verb(&mut xml, verb);
    }
    xml.push_str("</Response>");
    xml
}

fn write_verb(xml: &mut String, verb: &Verb) -> std::fmt::Result {
    match verb {
        Verb::ConnectStream { url, status_callback, parameters } => {
            write!(
                xml,
                r#"<Connect><Stream url="{}" statusCallback="{}" statusCallbackMethod="POST">"#,
                attribute(url),
                attribute(status_callback)
            )?;
            for (name, value) in parameters {
                write!(xml, r#"<Parameter name="{}" value="{}"/>"#, attribute(name), attribute(value))?;
            }
            xml.write_str("</Stream></Connect>")
        }
        Verb::Say(line) => write!(xml, "<Say>{}</Say>", text(line)),
        Verb::Pause(seconds) => write!(xml, r#"<Pause length="{seconds}"/>"#),
        Verb::Redirect(url) => write!(xml, r#"<Redirect method="POST">{}</Redirect>"#, text(url)),
        Verb::PlayDigits(keys) => write!(xml, r#"<Play digits="{}"/>"#, attribute(keys)),
        Verb::Dial { target, caller_id, action, timeout_seconds } => {
            xml.write_str("<Dial")?;
            if let Some(action) = action {
                write!(xml, r#" action="{}" method="POST""#, attribute(action))?;
            }
            write!(xml, r#" timeout="{timeout_seconds}""#)?;
            if let Some(caller_id) = caller_id {
                write!(xml, r#" callerId="{}""#, attribute(caller_id))?;
            }
            match target {
                DialTarget::Number { number, send_digits: None } => write!(xml, "><Number>{}</Number>", text(number))?,
                DialTarget::Number { number, send_digits: Some(keys) } => {
                    write!(xml, r#"><Number sendDigits="{}">{}</Number>"#, attribute(keys), text(number))?;
                }
                DialTarget::Sip(uri) => write!(xml, "><Sip>{}</Sip>", text(uri))?,
            }
            xml.write_str("</Dial>")
        }
        Verb::Hangup => xml.write_str("<Hangup/>"),
    }
}

fn text(raw: &str) -> String {
    escape(raw, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    })
}

fn attribute(raw: &str) -> String {
    escape(raw, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '"' => Some("&quot;"),
        '\t' => Some("&#x9;"),
        '\n' => Some("&#xA;"),
        '\r' => Some("&#xD;"),
        _ => None,
    })
}

fn escape(raw: &str, replacement: fn(char) -> Option<&'static str>) -> String {
    let mut escaped = String::with_capacity(raw.len());
    for c in raw.chars() {
        match replacement(c) {
            Some(entity) => escaped.push_str(entity),
            // XML 1.0 has no way to write other control characters.
            None if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => {}
            None => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_helper_library_writes_it() {
        assert_eq!(render(&[]), r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#);
        assert_eq!(
            render(&[
                Verb::ConnectStream {
                    url: "wss://origin.example.com/media".into(),
                    status_callback: "https://edge.example.com/twilio/stream-status".into(),
                    parameters: vec![("token", "abc.def-123".into()), ("tenant", "A&B \"q\" <x> é".into())],
                },
                Verb::Redirect("https://edge.example.com/twilio/voice?x=1&y=2".into()),
            ]),
            r#"<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="wss://origin.example.com/media" statusCallback="https://edge.example.com/twilio/stream-status" statusCallbackMethod="POST"><Parameter name="token" value="abc.def-123"/><Parameter name="tenant" value="A&amp;B &quot;q&quot; &lt;x> é"/></Stream></Connect><Redirect method="POST">https://edge.example.com/twilio/voice?x=1&amp;y=2</Redirect></Response>"#
        );
        assert_eq!(
            render(&[
                Verb::Say("Fish & chips < 5 > \"quoted\" it's é".into()),
                Verb::Pause(2),
                Verb::Dial {
                    target: DialTarget::number("+15557654321"),
                    caller_id: None,
                    action: None,
                    timeout_seconds: 20
                },
                Verb::Hangup
            ]),
            r#"<?xml version="1.0" encoding="UTF-8"?><Response><Say>Fish &amp; chips &lt; 5 &gt; "quoted" it's é</Say><Pause length="2"/><Dial timeout="20"><Number>+15557654321</Number></Dial><Hangup/></Response>"#
        );
    }

    #[test]
    fn transfers_and_keys() {
        let target = DialTarget::Number { number: "+15557654321".into(), send_digits: Some("ww12#".into()) };
        let (caller_id, action) = (Some("+15551230000".to_owned()), Some("https://h/r?after=1&x=2".to_owned()));
        assert_eq!(
            render(&[Verb::Dial { target, caller_id, action, timeout_seconds: 20 }, Verb::PlayDigits("1w2".into())]),
            r#"<?xml version="1.0" encoding="UTF-8"?><Response><Dial action="https://h/r?after=1&amp;x=2" method="POST" timeout="20" callerId="+15551230000"><Number sendDigits="ww12#">+15557654321</Number></Dial><Play digits="1w2"/></Response>"#
        );
        let target = DialTarget::Sip("sip:agent@sip.example.com;transport=tls?X-Call=abc&X-T=1".into());
        assert_eq!(
            render(&[Verb::Dial { target, caller_id: None, action: None, timeout_seconds: 15 }]),
            r#"<?xml version="1.0" encoding="UTF-8"?><Response><Dial timeout="15"><Sip>sip:agent@sip.example.com;transport=tls?X-Call=abc&amp;X-T=1</Sip></Dial></Response>"#
        );
    }

    #[test]
    fn control_characters_never_break_the_document() {
        assert_eq!(text("a\u{0}b\nc"), "ab\nc");
        assert_eq!(attribute("a\nb\u{1b}"), "a&#xA;b");
    }
}
