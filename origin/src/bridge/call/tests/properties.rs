//! Any interleaving of what both sides, tools and the clock may say. The server keeps its own rules (one response at a
//! time, an answer to every request) and is otherwise as unkind as it can be.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::bridge::call::ringing::is_tone;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Tick,
    Frame { jump: u64 },
    MarkComesBack { all: bool },
    Key(&'static str),
    SpeechStarted,
    SpeechStopped,
    Committed,
    Turns { ours: bool },
    ServerResponds,
    AnswerRequest { refusal: Option<&'static str> },
    Audio { item: u8, ms: usize },
    AudioOfNoResponse,
    AudioDone,
    Words { item: u8 },
    WordsDone { item: u8 },
    FunctionCall,
    ToolDone,
    McpCallEnded,
    OutputAdded,
    Done { status: &'static str, detail: &'static str },
    Harmless,
    SessionReady,
    Ends { how: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let statuses = prop_oneof![
        4 => Just(("completed", "")),
        2 => Just(("cancelled", "turn_detected")),
        1 => Just(("failed", "server_error")),
        1 => Just(("failed", "rate_limit_exceeded")),
        1 => Just(("incomplete", "content_filter")),
        1 => Just(("incomplete", "max_output_tokens")),
    ];
    let refusal = prop_oneof![
        4 => Just(None),
        1 => Just(Some("conversation_already_has_active_response")),
        1 => Just(Some("invalid_value")),
    ];
    let talk = prop_oneof![
        4 => (0..800_u64).prop_map(Step::Wait),
        3 => Just(Step::Tick),
        2 => (0..3_000_u64).prop_map(|jump| Step::Frame { jump }),
        5 => prop::bool::weighted(0.1).prop_map(|all| Step::MarkComesBack { all }),
        1 => prop::sample::select(vec!["1", "#", "x"]).prop_map(Step::Key),
        3 => Just(Step::SpeechStarted),
        2 => Just(Step::SpeechStopped),
        3 => Just(Step::Committed),
        1 => any::<bool>().prop_map(|ours| Step::Turns { ours }),
        1 => Just(Step::FunctionCall),
        1 => Just(Step::ToolDone),
        1 => Just(Step::McpCallEnded),
        1 => Just(Step::OutputAdded),
        1 => Just(Step::Harmless),
        1 => Just(Step::SessionReady),
    ];
    let respond = prop_oneof![
        3 => Just(Step::ServerResponds),
        5 => refusal.prop_map(|refusal| Step::AnswerRequest { refusal }),
        9 => (0..3_u8, 1..700_usize).prop_map(|(item, ms)| Step::Audio { item, ms }),
        1 => Just(Step::AudioOfNoResponse),
        2 => Just(Step::AudioDone),
        2 => (0..3_u8).prop_map(|item| Step::Words { item }),
        2 => (0..3_u8).prop_map(|item| Step::WordsDone { item }),
        5 => statuses.prop_map(|(status, detail)| Step::Done { status, detail }),
    ];
    prop_oneof![60 => talk, 70 => respond, 1 => (0..5_u8).prop_map(|how| Step::Ends { how })]
}

/// What an observer on both wires knows.
#[derive(Default)]
struct World {
    at_ms: u64,
    responses: usize,
    active: Option<usize>,
    /// Event ids of requests without an answer, and when they were made. A server that takes ten seconds has lost them.
    requests: Vec<(String, u64)>,
    now: u64,
    marks: Vec<String>,
    tools: Vec<String>,
    /// Audio of each item that went to the caller, in bytes.
    sent: BTreeMap<String, u64>,
    /// Items that the server has told of.
    known: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// Responses of which nothing may be played any more.
    dead: BTreeSet<usize>,
    opens_session: bool,
    ended: bool,
}

impl World {
    fn play(&mut self, script: &mut Script, step: &Step) {
        self.requests.retain(|(_, since)| script.now < since + 10_000);
        match step {
            Step::Wait(ms) => script.now += ms,
            Step::Tick => {
                if let Some(deadline) = script.call.deadline() {
                    script.now = script.now.max(deadline);
                }
                script.input(Input::Tick);
            }
            Step::Frame { jump } => {
                self.at_ms += 20 + jump;
                let payload = STANDARD.encode([9; 160]);
                let at = self.at_ms.to_string();
                script.caller(&json!({"event": "media", "media": {"timestamp": at, "payload": payload}}));
            }
            Step::MarkComesBack { all } => {
                let count = if *all { self.marks.len() } else { self.marks.len().min(1) };
                for name in self.marks.drain(..count) {
                    script.caller(&mark(&name));
                }
            }
            Step::Key(key) => script.caller(&json!({"event": "dtmf", "dtmf": {"digit": key}})),
            Step::Ends { how } => match how {
                0 => script.caller(&json!({"event": "stop"})),
                1 => script.input(Input::CallerGone),
                2 => script.input(Input::ModelGone),
                3 => script.input(Input::Leave { by: script.now + 300 }),
                _ => script.model(&json!({"type": "error", "error": {"code": "session_expired", "message": ""}})),
            },
            _ => self.serve(script, step),
        }
    }

    /// What OpenAI says.
    fn serve(&mut self, script: &mut Script, step: &Step) {
        match step {
            Step::SpeechStarted => script.model(&speech_started()),
            Step::SpeechStopped => script.model(&json!({"type": "input_audio_buffer.speech_stopped"})),
            Step::Committed => script.model(&committed("said")),
            Step::Turns { ours } => {
                let mut event = confirmed("audio/pcmu");
                event["session"]["audio"]["input"]["turn_detection"] = json!({"create_response": !ours});
                script.model(&event);
            }
            Step::ServerResponds if self.active.is_none() => {
                let id = self.begin();
                script.model(&created(&id));
            }
            Step::AnswerRequest { refusal } if !self.requests.is_empty() => {
                let (request, _) = self.requests.remove(0);
                let busy = self.active.map(|_| "conversation_already_has_active_response");
                if let Some(code) = busy.or(*refusal) {
                    script
                        .model(&json!({"type": "error", "error": {"code": code, "message": "", "event_id": request}}));
                } else {
                    let id = self.begin();
                    let metadata = json!({"tandem": request});
                    script.model(&json!({"type": "response.created", "response": {"id": id, "metadata": metadata}}));
                }
            }
            Step::Audio { item, ms } => {
                if let Some(active) = self.active {
                    let item = format!("{active}_{item}");
                    self.known.insert(item.clone());
                    script.agent_says(&format!("r{active}"), &item, &vec![active_byte(active); ms * 8]);
                }
            }
            Step::AudioOfNoResponse => script.agent_says("r0", "nobody", &[0; 800]),
            Step::AudioDone => {
                let id = format!("r{}", self.active.unwrap_or(0));
                script.model(&json!({"type": "response.output_audio.done", "response_id": id, "item_id": "x"}));
            }
            Step::Words { item } => {
                let item = format!("{}_{item}", self.active.unwrap_or(0));
                let kind = "response.output_audio_transcript.delta";
                script.model(&json!({"type": kind, "item_id": item, "delta": "some more words "}));
            }
            Step::WordsDone { item } => {
                let item = format!("{}_{item}", self.active.unwrap_or(0));
                let kind = "response.output_audio_transcript.done";
                script.model(&json!({"type": kind, "item_id": item, "transcript": "some more words"}));
            }
            Step::FunctionCall => {
                let id = format!("call_{}", self.tools.len());
                script.model(&json!({"type": "response.output_item.done", "item": {"id": id, "call_id": id,
                    "type": "function_call", "status": "completed", "name": "f", "arguments": "{}"}}));
                self.tools.push(id);
            }
            Step::ToolDone => {
                if let Some(call_id) = self.tools.pop() {
                    script.input(Input::ToolDone { call_id, output: String::new(), command: None });
                }
            }
            Step::McpCallEnded => script.model(&json!({"type": "response.mcp_call.completed", "item_id": "m"})),
            Step::OutputAdded => script.model(
                &json!({"type": "conversation.item.added", "item": {"id": "o", "type": "function_call_output"}}),
            ),
            Step::Done { status, detail } => {
                if let Some(active) = self.active.take() {
                    let details = json!({"reason": detail, "error": {"code": detail, "message": ""}});
                    script.model(&json!({"type": "response.done", "response": {"id": format!("r{active}"),
                        "status": status, "status_details": details, "usage": null}}));
                }
            }
            Step::Harmless => {
                let code = "response_cancel_not_active";
                script.model(&json!({"type": "error", "error": {"code": code, "message": "", "event_id": null}}));
            }
            Step::SessionReady if std::mem::take(&mut self.opens_session) => script.session(),
            _ => {}
        }
    }

    fn begin(&mut self) -> String {
        self.responses += 1;
        self.active = Some(self.responses);
        format!("r{}", self.responses)
    }

    /// Looks at what the call did.
    fn observe(&mut self, now: u64, actions: Vec<Action>) {
        self.now = now;
        self.requests.retain(|(_, since)| now < since + 10_000);
        for action in actions {
            assert!(!self.ended, "nothing comes after the end: {action:?}");
            match action {
                Action::ToModel(text) => self.at_the_model(&serde_json::from_str(&text).expect("JSON")),
                Action::ToCaller(text) => self.at_the_caller(&serde_json::from_str(&text).expect("JSON")),
                Action::End(_) => self.ended = true,
                Action::OpenSession => self.opens_session = true,
                // Whatever the old session was about, the new one knows nothing of it.
                Action::TakeSession => {
                    self.active = None;
                    self.requests.clear();
                    self.known.clear();
                }
                Action::Line(line) => {
                    assert!(line.heard_ms.is_none_or(|heard| heard <= self.sent_ms(&line.item_id)), "{line:?}");
                }
                _ => {}
            }
        }
    }

    fn at_the_model(&mut self, event: &Value) {
        let item = || event["item_id"].as_str().expect("an item").to_owned();
        match event["type"].as_str().expect("a type") {
            "response.create" => {
                assert!(self.requests.is_empty() && self.active.is_none(), "two responses at once");
                self.requests.push((event["event_id"].as_str().expect("an id").to_owned(), self.now));
            }
            "response.cancel" => {
                let id = self.active.map(|active| format!("r{active}"));
                assert_eq!(event["response_id"].as_str(), id.as_deref(), "only what is active is cancelled");
                self.dead.extend(self.active);
            }
            "conversation.item.truncate" => {
                let (item, end) = (item(), event["audio_end_ms"].as_u64().expect("a time"));
                assert!(self.known.contains(&item) && !self.deleted.contains(&item), "{item} is unknown");
                assert!(end <= self.sent_ms(&item), "{item} is truncated beyond what was sent");
            }
            "conversation.item.delete" => {
                let item = item();
                assert!(self.known.contains(&item), "{item} is unknown");
                assert!(self.deleted.insert(item), "deleted twice");
            }
            _ => {}
        }
    }

    fn at_the_caller(&mut self, message: &Value) {
        match message["event"].as_str().expect("an event") {
            // Nobody's words.
            "media" if is_tone(message) => {}
            "mark" => self.marks.push(message["mark"]["name"].as_str().expect("a name").to_owned()),
            "clear" => self.dead.extend(1..=self.responses),
            "media" => {
                let audio = STANDARD.decode(message["media"]["payload"].as_str().expect("audio")).expect("base64");
                let active = self.active.expect("only what is being generated is sent");
                assert!(audio.iter().all(|byte| *byte == active_byte(active)), "audio of another response");
                assert!(!self.dead.contains(&active), "audio of a response that was interrupted");
            }
            other => panic!("{other} is no message of ours"),
        }
    }

    fn sent_ms(&self, item: &str) -> u64 {
        self.sent.get(item).copied().unwrap_or(0) / 8
    }
}

fn active_byte(active: usize) -> u8 {
    u8::try_from(active % 251).expect("small")
}

impl Script {
    fn agent_says(&mut self, response: &str, item: &str, audio: &[u8]) {
        let delta = STANDARD.encode(audio);
        self.model(&json!({"type": "response.output_audio.delta", "response_id": response, "item_id": item,
            "content_index": 0, "delta": delta}));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_breaks_a_call(
        steps in prop::collection::vec(step(), 1..120),
        is_protected in any::<bool>(),
        interrupt_after_words in 0..3_u32,
        greets in any::<bool>(),
    ) {
        let mut script = Script::with(|setup| {
            setup.first_ask = greets.then(|| Ask::Say("Hello.".into()));
            setup.protection = (greets && is_protected).then(|| r#"{"type":"session.update"}"#.into());
            setup.interrupt_after_words = interrupt_after_words;
        });
        let mut world = World::default();
        for step in steps.iter().chain([&Step::Turns { ours: is_protected }]) {
            world.play(&mut script, step);
            let actions = script.take();
            // What goes to the caller in one step is of the one item that the step was about.
            if let (Step::Audio { item, .. }, Some(active)) = (step, world.active) {
                let is_media = |action: &&Action| matches!(action, Action::ToCaller(text) if text.contains("media"));
                let bytes = actions.iter().filter(is_media).map(media_bytes).sum::<u64>();
                if bytes > 0 {
                    *world.sent.entry(format!("{active}_{item}")).or_default() += bytes;
                }
            }
            world.observe(script.now, actions);
        }
        // However long nobody says anything: every deadline comes, moves time on, and is the last some time.
        let mut rounds = 0;
        while let Some(deadline) = script.call.deadline() {
            script.now = script.now.max(deadline);
            script.input(Input::Tick);
            world.observe(script.now, script.take());
            prop_assert!(script.call.deadline().is_none_or(|next| next > deadline), "a deadline that does not pass");
            rounds += 1;
            prop_assert!(rounds < 500, "deadlines without an end");
        }
        if !world.ended {
            script.input(Input::CallerGone);
            world.observe(script.now, script.take());
        }
        prop_assert!(world.ended);
        script.input(Input::CallerGone);
        script.input(Input::ModelGone);
        prop_assert!(script.take().is_empty(), "the end comes once");
    }
}

fn media_bytes(action: &Action) -> u64 {
    let Action::ToCaller(text) = action else { return 0 };
    let message: Value = serde_json::from_str(text).expect("JSON");
    message["media"]["payload"].as_str().map_or(0, |audio| STANDARD.decode(audio).expect("base64").len() as u64)
}
