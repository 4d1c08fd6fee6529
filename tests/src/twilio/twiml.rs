//! TwiML: from the bytes of an answer to the verbs to execute, and what Twilio would remark about it.
//!
//! Pure. Faults that Twilio only warns about (12200) leave out the offending part and are listed; a
//! document that it cannot read at all (12100) is an error.

mod schema;
mod xml;

use xml::Element;

/// Longest `<Say>` text, in characters.
const SAY_LIMIT: usize = 4096;
/// Longest name and value of a `<Parameter>` together, in characters: "under 500".
const PARAMETER_LIMIT: usize = 500;

/// A document that can be executed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Document {
    pub(crate) verbs: Vec<Verb>,
    /// What the debugger would show, with its code.
    pub(crate) warnings: Vec<(u32, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }

    /// Twilio takes anything but GET as its default, POST.
    pub(crate) fn of(text: Option<&str>) -> Self {
        if text.is_some_and(|text| text.eq_ignore_ascii_case("GET")) { Self::Get } else { Self::Post }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verb {
    Connect {
        action: Option<Action>,
        stream: Option<Stream>,
    },
    Dial(Dial),
    Hangup,
    Pause {
        seconds: u64,
    },
    Play {
        url: String,
        /// Keys in place of a sound: `0-9 * # A-D`, `w` waits half a second, `W` one.
        digits: Option<String>,
    },
    Redirect(Action),
    Reject {
        busy: bool,
    },
    Say {
        text: String,
        times: Option<u32>,
    },
    /// A verb that Twilio has and the simulator does not run.
    Unsimulated {
        name: String,
    },
}

/// A URL to ask for what comes next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Action {
    pub(crate) url: String,
    pub(crate) method: Method,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stream {
    pub(crate) url: String,
    pub(crate) name: Option<String>,
    pub(crate) track: Option<String>,
    pub(crate) status_callback: Option<Action>,
    pub(crate) parameters: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dial {
    pub(crate) action: Option<Action>,
    pub(crate) timeout_ms: u64,
    pub(crate) time_limit_ms: u64,
    pub(crate) answer_on_bridge: bool,
    pub(crate) caller_id: Option<String>,
    /// Keys pressed at whoever answers: `sendDigits` of the first `<Number>` that has it.
    pub(crate) send_digits: Option<String>,
    /// What is dialled, all at once: the text of `<Number>`, `<Sip>` and of the verb itself.
    pub(crate) targets: Vec<String>,
}

impl Verb {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Connect { .. } => "Connect",
            Self::Dial(_) => "Dial",
            Self::Hangup => "Hangup",
            Self::Pause { .. } => "Pause",
            Self::Play { .. } => "Play",
            Self::Redirect(_) => "Redirect",
            Self::Reject { .. } => "Reject",
            Self::Say { .. } => "Say",
            Self::Unsimulated { name } => name,
        }
    }

    /// What a person wants to know of it, for the trace.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Connect { stream: Some(stream), .. } => format!("stream to {}", stream.url),
            Self::Dial(dial) => dial.targets.join(", "),
            Self::Pause { seconds } => format!("{seconds} s"),
            Self::Play { digits: Some(digits), .. } => format!("keys {digits}"),
            Self::Play { url, digits: None } | Self::Redirect(Action { url, .. }) => url.clone(),
            Self::Reject { busy } => if *busy { "busy" } else { "rejected" }.to_owned(),
            Self::Say { text, .. } => format!("\"{text}\""),
            Self::Unsimulated { .. } => "is not simulated".to_owned(),
            Self::Connect { stream: None, .. } | Self::Hangup => String::new(),
        }
    }
}

impl Document {
    /// Reads a document. The error is what the debugger shows beside 12100.
    pub(crate) fn parse(body: &str) -> Result<Self, String> {
        let root = xml::parse(body)?;
        if root.name != "Response" {
            return Err(format!("the root element is <{}>, not <Response>", root.name));
        }
        let mut document = Self::default();
        if !root.text.trim().is_empty() {
            document.warn(format!("text in <Response>: {}", root.text.trim()));
        }
        for element in &root.children {
            document.check_attributes(element, schema::verb(&element.name), schema::is_simulated(&element.name));
            let verb = document.verb(element);
            document.verbs.extend(verb);
        }
        Ok(document)
    }

    /// The document that reads a `text/plain` answer aloud.
    pub(crate) fn saying(text: &str) -> Self {
        let verbs = vec![Verb::Say { text: text.to_owned(), times: Some(1) }];
        Self { verbs, warnings: Vec::new() }
    }

    fn warn(&mut self, text: String) {
        self.warnings.push((12200, text));
    }

    fn check_attributes(&mut self, element: &Element, known: Option<&[&str]>, checked: bool) {
        for (name, _) in element.attributes.iter().filter(|_| checked) {
            if known.is_some_and(|known| !known.contains(&name.as_str())) {
                self.warn(format!("<{}> has no attribute {name}", element.name));
            }
        }
    }

    /// The children of a verb that belong there, as far as the simulator knows them.
    fn nouns<'a>(&mut self, parent: &'a Element) -> Vec<&'a Element> {
        let mut nouns = Vec::new();
        for child in &parent.children {
            if let Some(known) = schema::noun(&parent.name, &child.name) {
                self.check_attributes(child, Some(known), true);
                nouns.push(child);
            } else if schema::is_unsimulated_noun(&parent.name, &child.name) {
                self.warnings.push((0, format!("<{}> in <{}> is not simulated", child.name, parent.name)));
            } else {
                self.warn(format!("<{}> does not belong in <{}>", child.name, parent.name));
            }
        }
        nouns
    }

    fn verb(&mut self, element: &Element) -> Option<Verb> {
        if schema::verb(&element.name).is_none() {
            self.warn(format!("<{}> is not a verb", element.name));
            return None;
        }
        let text = element.text.trim();
        Some(match element.name.as_str() {
            "Connect" => {
                let nouns = self.nouns(element);
                let stream = nouns.first().map(|stream| self.stream(stream));
                Verb::Connect { action: action(element), stream }
            }
            "Dial" => Verb::Dial(self.dial(element)),
            "Hangup" => Verb::Hangup,
            "Pause" => Verb::Pause { seconds: self.number(element, "length", 1) },
            "Play" => {
                let digits = element.attribute("digits").map(str::to_owned);
                let is_keys =
                    |digits: &str| !digits.is_empty() && digits.chars().all(|key| "0123456789*#ABCDwW".contains(key));
                if digits.as_deref().is_some_and(|digits| !is_keys(digits)) {
                    self.warn("digits of <Play> are not keys".to_owned());
                    return None;
                }
                Verb::Play { url: text.to_owned(), digits }
            }
            "Redirect" => {
                Verb::Redirect(Action { url: text.to_owned(), method: Method::of(element.attribute("method")) })
            }
            "Reject" => Verb::Reject { busy: element.attribute("reason") == Some("busy") },
            "Say" => {
                let text = spoken(element);
                if text.chars().count() > SAY_LIMIT {
                    self.warn(format!("<Say> is longer than {SAY_LIMIT} characters"));
                }
                let times = u32::try_from(self.number(element, "loop", 1)).unwrap_or(u32::MAX);
                Verb::Say { text, times: Some(times).filter(|times| *times > 0) }
            }
            name => Verb::Unsimulated { name: name.to_owned() },
        })
    }

    fn stream(&mut self, element: &Element) -> Stream {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for child in self.nouns(element) {
            let (name, value) = (child.attribute("name"), child.attribute("value"));
            let (Some(name), Some(value)) = (name, value) else {
                self.warn("<Parameter> without name or value".to_owned());
                continue;
            };
            if name.chars().count() + value.chars().count() >= PARAMETER_LIMIT {
                self.warn(format!("<Parameter> {name}: name and value have {PARAMETER_LIMIT} characters or more"));
                continue;
            }
            parameters.push((name.to_owned(), value.to_owned()));
        }
        let own = |name: &str| element.attribute(name).map(str::to_owned);
        Stream {
            url: own("url").unwrap_or_default(),
            name: own("name"),
            track: own("track"),
            status_callback: own("statusCallback")
                .map(|url| Action { url, method: Method::of(element.attribute("statusCallbackMethod")) }),
            parameters,
        }
    }

    fn dial(&mut self, element: &Element) -> Dial {
        let bare = Some(element.text.trim().to_owned()).filter(|text| !text.is_empty());
        let nouns = self.nouns(element);
        Dial {
            action: action(element),
            timeout_ms: self.number(element, "timeout", 30) * 1000,
            time_limit_ms: self.number(element, "timeLimit", 4 * 3600) * 1000,
            answer_on_bridge: element.attribute("answerOnBridge") == Some("true"),
            caller_id: element.attribute("callerId").map(str::to_owned),
            send_digits: nouns.iter().find_map(|noun| noun.attribute("sendDigits")).map(str::to_owned),
            targets: bare.into_iter().chain(nouns.iter().map(|noun| noun.text.trim().to_owned())).collect(),
        }
    }

    fn number(&mut self, element: &Element, name: &str, default: u64) -> u64 {
        let Some(text) = element.attribute(name) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            self.warn(format!("{name}=\"{text}\" of <{}> is not a number", element.name));
            default
        })
    }
}

fn action(element: &Element) -> Option<Action> {
    let url = element.attribute("action")?.to_owned();
    Some(Action { url, method: Method::of(element.attribute("method")) })
}

/// What `<Say>` says: its text and that of its SSML children.
fn spoken(element: &Element) -> String {
    let children: String = element.children.iter().map(spoken).collect();
    format!("{}{children}", element.text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Document {
        Document::parse(body).expect("a readable document")
    }

    #[test]
    fn the_sdks_output_is_understood() {
        // Exact output of the node SDK.
        let document = parse(
            r#"<?xml version="1.0" encoding="UTF-8"?><Response><Connect action="https://edge.example.com/after" method="GET"><Stream url="wss://origin.example.com/media" name="call-1" statusCallback="https://edge.example.com/s"><Parameter name="token" value="abc.def-123"/><Parameter name="tenant" value="A&amp;B &quot;q&quot; &lt;x> é"/></Stream></Connect><Redirect method="POST">https://edge.example.com/twilio/voice?x=1&amp;y=2</Redirect><Dial timeout="20" answerOnBridge="true"><Number>+15557654321</Number></Dial><Say voice="Polly.Joanna" loop="2">Fish &amp; chips &lt; 5 &gt; "quoted" it's é</Say><Pause length="2"/><Reject reason="busy"/><Hangup/></Response>"#,
        );
        assert_eq!(document.warnings, []);
        let Verb::Connect { action: Some(action), stream: Some(stream) } = &document.verbs[0] else {
            panic!("{:?}", document.verbs[0]);
        };
        assert_eq!(action, &Action { url: "https://edge.example.com/after".to_owned(), method: Method::Get });
        assert_eq!(stream.parameters[1].1, "A&B \"q\" <x> é");
        assert_eq!(stream.status_callback.as_ref().map(|callback| callback.method), Some(Method::Post));
        let Verb::Redirect(redirect) = &document.verbs[1] else { panic!("{:?}", document.verbs[1]) };
        assert_eq!(redirect.url, "https://edge.example.com/twilio/voice?x=1&y=2");
        let Verb::Dial(dial) = &document.verbs[2] else { panic!("{:?}", document.verbs[2]) };
        assert_eq!((dial.timeout_ms, dial.answer_on_bridge, &dial.targets[0][..]), (20_000, true, "+15557654321"));
        let said = Verb::Say { text: "Fish & chips < 5 > \"quoted\" it's é".to_owned(), times: Some(2) };
        assert_eq!(document.verbs[3..], [said, Verb::Pause { seconds: 2 }, Verb::Reject { busy: true }, Verb::Hangup,]);
    }

    #[test]
    fn what_is_not_xml_is_refused() {
        for body in [
            "",
            "ok",
            "{}",
            "<Response>",
            "<Response></Respons>",
            "<Response/><Response/>",
            "<response/>",
            "<Response><Say>a & b</Say></Response>",
            "<Response><Say>&nbsp;</Say></Response>",
            "<Response><Stream url=wss://h/></Response>",
            "\n<?xml version=\"1.0\"?><Response/>",
            "<!DOCTYPE x><Response/>",
        ] {
            assert!(Document::parse(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn unknown_parts_are_remarked_and_left_out() {
        let document = parse(
            r#"<Response>hm<say>no</say><Say pitch="1">yes</Say><Connect><Stream url="wss://h" bitrate="1"><Parameter name="n"/></Stream><Number>1</Number></Connect><Pause length="x"/></Response>"#,
        );
        assert_eq!(document.warnings.len(), 7, "{:?}", document.warnings);
        assert!(document.warnings.iter().all(|(code, _)| *code == 12200));
        assert_eq!(document.verbs.iter().map(Verb::name).collect::<Vec<_>>(), ["Say", "Connect", "Pause"]);
    }

    #[test]
    fn keys_in_place_of_a_sound() {
        let document =
            parse(r#"<Response><Play digits="ww12#"/><Play>https://h/x.mp3</Play><Play digits="x"/></Response>"#);
        let keys = Verb::Play { url: String::new(), digits: Some("ww12#".to_owned()) };
        assert_eq!(document.verbs, [keys, Verb::Play { url: "https://h/x.mp3".to_owned(), digits: None }]);
        assert_eq!(document.warnings.len(), 1, "{:?}", document.warnings);
    }

    #[test]
    fn a_parameter_of_500_characters_is_too_long() {
        let body = |length: usize| {
            let value = "v".repeat(length);
            format!(
                r#"<Response><Connect><Stream url="wss://h"><Parameter name="n" value="{value}"/></Stream></Connect></Response>"#
            )
        };
        assert_eq!(parse(&body(498)).warnings.len(), 0);
        assert_eq!(parse(&body(499)).warnings.len(), 1);
    }
}
