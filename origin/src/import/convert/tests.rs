use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::import::mapping::{ASSISTANT, Rule, TOOL};
use crate::import::report::{Source, Status};
use crate::import::{draft::Target, report::Entry};
use crate::store::agents::realtime::TurnDetection;
use crate::store::agents::realtime::call::FirstMessage;

fn convert_with(assistant: &Value, tools: &Tools, options: &Options) -> Conversion {
    convert(assistant, tools, options).unwrap()
}

fn plain(mut assistant: Value) -> Conversion {
    assistant["id"] = "a1".into();
    convert_with(&assistant, &Tools::new(), &Options::default())
}

fn entry<'a>(conversion: &'a Conversion, path: &str) -> &'a Entry {
    let entries: Vec<_> = conversion.report.fields.iter().filter(|entry| entry.path == path).collect();
    assert_eq!(entries.len(), 1, "{path} in {:#?}", conversion.report);
    entries[0]
}

fn status(conversion: &Conversion, path: &str) -> (Status, bool) {
    let entry = entry(conversion, path);
    (entry.status, entry.is_open())
}

/// Sets a value where a pattern points: lists where it says `*`, members `x` and `y` for what it leaves open.
fn set(document: &mut Value, pattern: &str, value: Value) {
    let mut place = document;
    let steps: Vec<&str> = pattern.split('.').collect();
    for (position, step) in steps.iter().enumerate() {
        match *step {
            "**" => {
                let last = position > 0 && place.is_null();
                if !last {
                    place = member(place, "x");
                }
            }
            "*" => {
                if !place.is_array() {
                    *place = json!([]);
                }
                let items = place.as_array_mut().unwrap();
                if items.is_empty() {
                    items.push(Value::Null);
                }
                place = &mut items[0];
            }
            key => place = member(place, key),
        }
    }
    *place = value;
}

fn member<'a>(place: &'a mut Value, key: &str) -> &'a mut Value {
    if !place.is_object() {
        *place = json!({});
    }
    &mut place[key]
}

fn any_value() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "",
        "system",
        "user",
        "off",
        "openai",
        "gpt-realtime-2",
        "11labs",
        "marin",
        "function",
        "transferCall",
        "endCall",
        "dtmf",
        "mcp",
        "number",
        "sip",
        "+15550100",
        "sip:a@b.test",
        "https://tools.test/x",
        "https://u:p@tools.test",
        "say",
        "customer.speech.timeout",
        "request-start",
        "en-US",
        "book",
        "{{name}} {% if %}",
        "#",
        "assistant-waits-for-user",
        "semi\u{0}colon",
    ]);
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        2 => (0..90_u32).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        4 => words.prop_map(Value::from),
        1 => ".{0,8}".prop_map(Value::from),
        1 => Just(json!([])),
        1 => Just(json!({})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A document with some of the fields that rules speak of, and fields of the future.
fn document(rules: &'static [Rule]) -> impl Strategy<Value = Value> {
    let known = prop::collection::vec((0..rules.len(), any_value()), 0..30);
    let unknown = prop::collection::vec((".{1,6}", any_value()), 0..3);
    (known, unknown).prop_map(move |(known, unknown)| {
        let mut document = json!({});
        for (rule, value) in known {
            set(&mut document, rules[rule].0, value);
        }
        for (key, value) in unknown {
            member(&mut document, &key);
            document[key.as_str()] = value;
        }
        document
    })
}

fn leaf_paths(path: Path, document: &Value) -> Vec<String> {
    Node::new(path, document).leaves().iter().map(|leaf| leaf.path.to_string()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_field_that_is_set_is_in_the_report_once(
        mut assistant in document(ASSISTANT),
        tool in document(TOOL),
        inline in document(TOOL),
        gone in any::<bool>(),
    ) {
        assistant["id"] = "a1".into();
        if !assistant["model"].is_object() {
            assistant["model"] = json!({});
        }
        assistant["model"]["toolIds"] = json!(["t1", "t2"]);
        assistant["model"]["tools"] = json!([inline]);
        let tools = Tools::from([("t1".to_owned(), Some(tool.clone())), ("t2".to_owned(), (!gone).then(|| inline.clone()))]);

        let conversion = convert_with(&assistant, &tools, &Options::default());

        let mut expected = leaf_paths(Path::default(), &assistant);
        expected.extend(leaf_paths(Path::tool("t1"), &tool));
        if !gone {
            expected.extend(leaf_paths(Path::tool("t2"), &inline));
        }
        let set = conversion.report.fields.iter().filter(|entry| entry.source == Source::Set);
        let reported: Vec<String> = set.map(|entry| entry.path.clone()).collect();
        prop_assert_eq!(&reported, &expected);
        prop_assert_eq!(reported.iter().collect::<HashSet<_>>().len(), reported.len(), "no path means two fields");

        // What is made can be stored and is what comes back.
        prop_assert_eq!(conversion.draft.realtime.faults(), Vec::<String>::new());
        let stored = serde_json::to_value(&conversion.draft).unwrap();
        prop_assert!(!stored.to_string().contains("\\u0000"));
        prop_assert_eq!(&canonical(&stored)["tools"], &canonical(&serde_json::to_value(&conversion.draft.tools).unwrap()));
        let read: AgentDraft = serde_json::from_value(stored).unwrap();
        prop_assert_eq!(read, conversion.draft);
    }

    #[test]
    fn secrets_go_nowhere(mut assistant in document(ASSISTANT), mut tool in document(TOOL)) {
        const SECRET: &str = "hunter2-hunter2";
        for place in ["server.secret", "server.headers.X-Key", "serverUrlSecret", "credentials.*.apiKey", "model.headers.a",
                      "metadata.apiKey", "voice.server.headers.b", "transcriber.server.secret"] {
            set(&mut assistant, place, SECRET.into());
        }
        for place in ["server.secret", "server.headers.Authorization", "server.credentialId"] {
            set(&mut tool, place, SECRET.into());
        }
        tool["parameters"] = json!([{"key": "api_key", "value": SECRET}, {"key": "a", "value": {"token": SECRET}}]);
        tool["server"]["url"] = format!("https://user:{SECRET}@tools.test/book").into();
        tool["type"] = "function".into();
        tool["function"] = json!({"name": "book"});
        assistant["id"] = "a1".into();
        if !assistant["model"].is_object() {
            assistant["model"] = json!({});
        }
        assistant["model"]["toolIds"] = json!(["t1"]);

        let conversion = convert_with(&assistant, &Tools::from([("t1".to_owned(), Some(tool))]), &Options::default());

        prop_assert!(conversion.draft.tools.iter().any(|tool| tool.name == "book"));
        let everything = format!("{conversion:?}");
        prop_assert!(!everything.contains(SECRET), "{}", everything);
    }
}

#[test]
fn anything_but_an_assistant_is_refused() {
    for value in [json!(null), json!([]), json!({}), json!({"id": 7}), json!({"id": "not an id"})] {
        assert_eq!(convert(&value, &Tools::new(), &Options::default()), Err(NoAssistant), "{value}");
    }
}

#[test]
fn nothing_set_is_reported_as_what_callers_hear() {
    let conversion = plain(json!({}));
    let AgentDraft { name, instructions, greeting, realtime, tools, .. } = &conversion.draft;
    assert_eq!((name.as_str(), instructions.as_str(), greeting, tools.len()), ("Assistant a1", "", &None, 0));
    assert_eq!(realtime.call.max_duration_seconds, Some(600));
    assert_eq!(realtime.call.silence_timeout_seconds, Some(30));
    assert_eq!(realtime.call.background_sound.as_deref(), Some("office"));
    assert_eq!(realtime.call.recording, Some(true));
    let defaults: Vec<_> = conversion.report.fields.iter().filter(|entry| entry.source == Source::Default).collect();
    let paths: Vec<&str> = defaults.iter().map(|entry| entry.path.as_str()).collect();
    for (path, wanted) in [
        ("maxDurationSeconds", Status::Carried),
        ("silenceTimeoutSeconds", Status::Carried),
        ("backgroundSound", Status::CarriedInactive),
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
        assert_eq!(status(&conversion, path), (wanted, false), "{path}");
    }
    assert_eq!(status(&conversion, "artifactPlan.recordingEnabled"), (Status::Carried, false));
    assert_eq!(status(&conversion, "voice"), (Status::Approximated, true), "callers hear another voice");
    assert!(!paths.contains(&"firstMessageInterruptionsEnabled"), "there is no first message");
    let greeting = plain(json!({"firstMessage": "Hello"}));
    assert_eq!(status(&greeting, "firstMessageInterruptionsEnabled"), (Status::Carried, false));
    assert_eq!(greeting.draft.realtime.call.first_message_interruptible, Some(false));
}

#[test]
fn an_assistant_that_is_already_realtime_loses_nothing() {
    let conversion = plain(json!({
        "name": "Ana",
        "model": {"provider": "openai", "model": "gpt-realtime-2",
                  "messages": [{"role": "system", "content": "Be kind."}, {"role": "system", "content": "Be brief."}]},
        "voice": {"provider": "openai", "voiceId": "cedar", "speed": 1.1},
        "firstMessage": "Hello", "firstMessageInterruptionsEnabled": true,
        "backgroundSound": "off", "artifactPlan": {"recordingEnabled": false},
    }));
    assert_eq!(conversion.report.open, 0, "{:#?}", conversion.report);
    assert_eq!(conversion.draft.instructions, "Be kind.\n\nBe brief.");
    assert_eq!(conversion.draft.realtime.model.as_deref(), Some("gpt-realtime-2"));
    assert_eq!(conversion.draft.realtime.voice, "cedar");
    assert_eq!(conversion.draft.greeting.as_deref(), Some("Hello"));
}

#[test]
fn other_voices_and_models_want_a_choice() {
    let assistant = json!({
        "id": "a1",
        "model": {"provider": "openai", "model": "gpt-4.1"},
        "voice": {"provider": "11labs", "voiceId": "rachel", "stability": 0.5, "pronunciationDictionaryLocators": [{"id": 1}]},
    });
    let undecided = convert_with(&assistant, &Tools::new(), &Options::default());
    assert_eq!(undecided.draft.realtime.voice, "marin");
    for path in ["voice.provider", "voice.voiceId", "model.model"] {
        assert_eq!(status(&undecided, path), (Status::Approximated, true), "{path}");
    }
    assert_eq!(status(&undecided, "voice.stability"), (Status::Approximated, false));
    assert_eq!(status(&undecided, "voice.pronunciationDictionaryLocators[0].id"), (Status::Lost, true));

    let options = Options {
        model: Some("gpt-realtime-2.1".to_owned()),
        voices: BTreeMap::from([("11labs:rachel".to_owned(), "cedar".to_owned())]),
        accepted: vec!["voice.pronunciationDictionaryLocators.**".to_owned()],
        ..Options::default()
    };
    let decided = convert_with(&assistant, &Tools::new(), &options);
    assert_eq!(decided.draft.realtime.voice, "cedar");
    assert_eq!(decided.draft.realtime.model.as_deref(), Some("gpt-realtime-2.1"));
    assert_eq!(decided.report.open, 0, "{:#?}", decided.report);
    let nova = plain(json!({"voice": {"provider": "openai", "voiceId": "nova"}}));
    assert_eq!(status(&nova, "voice.voiceId"), (Status::Approximated, true), "sessions have no nova");
}

#[test]
fn the_first_message_has_modes() {
    let waits = plain(json!({"firstMessage": "Hello", "firstMessageMode": "assistant-waits-for-user"}));
    assert_eq!(waits.draft.greeting, None);
    assert_eq!(waits.draft.realtime.call.first_message, Some(FirstMessage::Caller));
    assert_eq!(status(&waits, "firstMessage").0, Status::Carried);
    let audio = plain(json!({"firstMessage": "https://cdn.test/hello.mp3"}));
    assert_eq!((audio.draft.greeting.as_deref(), status(&audio, "firstMessage")), (None, (Status::Lost, true)));
    let future = plain(json!({"firstMessageMode": "assistant-sings"}));
    assert_eq!(status(&future, "firstMessageMode"), (Status::Lost, true));
}

#[test]
fn turns_are_taken_as_before() {
    let silence = |assistant| match plain(assistant).draft.realtime.turn_detection {
        TurnDetection::ServerVad { silence_duration_ms, .. } => Some(silence_duration_ms),
        TurnDetection::SemanticVad { .. } => None,
    };
    assert_eq!(silence(json!({})), Some(500));
    assert_eq!(silence(json!({"startSpeakingPlan": {"waitSeconds": 0.8}})), Some(900));
    assert_eq!(silence(json!({"responseDelaySeconds": 1})), Some(1100));
    assert_eq!(silence(json!({"startSpeakingPlan": {"smartEndpointingPlan": {"provider": "livekit"}}})), None);
    let words = plain(json!({"stopSpeakingPlan": {"numWords": 3, "voiceSeconds": 0.2}}));
    assert_eq!(words.draft.realtime.call.interrupt_after_words, Some(3));
    assert_eq!(status(&words, "stopSpeakingPlan.numWords"), (Status::Approximated, false));
}

#[test]
fn unknown_variables_and_tags_are_told() {
    let conversion = plain(json!({
        "model": {"messages": [{"role": "system", "content": "You work for {{company}}. {% if vip %}Bow.{% endif %}"}]},
        "firstMessage": "Hello {{customer.name}}",
    }));
    let instructions = entry(&conversion, "model.messages[0].content");
    assert!(instructions.note.contains("unknown variable `company`"), "{instructions:?}");
    assert!(instructions.note.contains("the tag `if`") && instructions.is_open());
    let greeting = entry(&conversion, "firstMessage");
    assert!(
        greeting.note.contains("the variable `customer.name`") && !greeting.note.contains("unknown"),
        "{greeting:?}"
    );
    assert_eq!(greeting.status, Status::Approximated);
    assert!(greeting.is_open(), "nothing renders it yet");
}

#[test]
fn functions_keep_their_servers_arguments_and_words() {
    let tool = json!({
        "id": "t1", "type": "function", "async": true,
        "function": {"name": "book", "description": "Books.", "strict": true,
                     "parameters": {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}},
        "parameters": [{"key": "caller", "value": "{{customer.number}}"}],
        "server": {"url": "https://tools.test/book", "timeoutSeconds": 90, "secret": "s", "headers": {"X-A": "b"}},
        "messages": [
            {"type": "request-start", "content": "One moment.", "blocking": false},
            {"type": "request-response-delayed", "content": "Still here.", "timingMilliseconds": 4000},
            {"type": "request-failed", "contents": [{"type": "text", "text": "No"}]},
        ],
        "rejectionPlan": {"conditions": [{"type": "regex", "regex": "x"}]},
    });
    let assistant = json!({"id": "a1", "model": {"toolIds": ["t1", "t9", "t1"]}});
    let tools = Tools::from([("t1".to_owned(), Some(tool)), ("t9".to_owned(), None)]);
    let conversion = convert_with(&assistant, &tools, &Options::default());
    let [draft] = conversion.draft.tools.as_slice() else { panic!("one tool: {:?}", conversion.draft.tools) };
    assert_eq!((draft.source.as_str(), draft.name.as_str(), draft.timeout_ms), ("tool:t1", "book", 60_000));
    assert_eq!(draft.target, Target::Http { url: "https://tools.test/book".to_owned() });
    assert_eq!(draft.parameters["required"], json!(["day"]));
    assert_eq!(draft.settings.static_arguments["caller"], "{{customer.number}}");
    assert!(draft.settings.background);
    assert_eq!(draft.settings.messages.len(), 2);
    assert_eq!(draft.settings.messages[1].after_ms, Some(4000));
    assert_eq!(status(&conversion, "model.toolIds[1]"), (Status::Lost, true));
    assert_eq!(status(&conversion, "model.toolIds[0]"), (Status::Carried, false));
    for (path, wanted) in [
        ("function.parameters.properties.day.type", (Status::Carried, false)),
        ("function.strict", (Status::Lost, true)),
        ("server.timeoutSeconds", (Status::Approximated, false)),
        ("server.secret", (Status::Lost, true)),
        ("server.headers.X-A", (Status::Lost, true)),
        ("parameters[0].value", (Status::CarriedInactive, true)),
        ("messages[0].content", (Status::CarriedInactive, true)),
        ("messages[0].blocking", (Status::Carried, false)),
        ("messages[2].type", (Status::Lost, true)),
        ("rejectionPlan.conditions[0].regex", (Status::Lost, true)),
    ] {
        assert_eq!(status(&conversion, &format!("tool(t1).{path}")), wanted, "{path}");
    }
}

#[test]
fn a_tool_without_a_server_uses_the_assistants() {
    let with = |server: Value| {
        plain(json!({"server": server, "model": {"tools": [{"type": "function", "function": {"name": "book"}}]}}))
    };
    let inherited = with(json!({"url": "https://tools.test/vapi", "timeoutSeconds": 5}));
    assert_eq!(inherited.draft.tools[0].target, Target::Http { url: "https://tools.test/vapi".to_owned() });
    assert_eq!(inherited.draft.tools[0].timeout_ms, 5_000);
    assert_eq!(inherited.draft.tools[0].source, "assistant:a1/book");
    assert_eq!(status(&inherited, "server.url"), (Status::Lost, true), "it hears of no calls any more");
    let ours = with(json!({"url": "https://edge.test/api/vapi/webhook"}));
    assert_eq!(ours.draft.tools, []);
    assert_eq!(status(&ours, "server.url"), (Status::Carried, false));
    assert_eq!(status(&ours, "model.tools[0].function.name"), (Status::Lost, true));
    assert_eq!(with(json!({})).draft.tools, []);
}

#[test]
fn what_vapi_does_itself_becomes_tools_of_ours() {
    let conversion = plain(json!({"model": {"tools": [
        {"type": "transferCall", "function": {"name": "transfer", "description": "Hand over."}, "destinations": [
            {"type": "number", "number": "+15550100", "description": "Billing", "message": "One moment.",
             "transferPlan": {"mode": "warm-transfer-say-message"}},
            {"type": "assistant", "assistantName": "Other"},
        ]},
        {"type": "transferCall"},
        {"type": "endCall"},
        {"type": "dtmf", "sipInfoDtmfEnabled": false},
        {"type": "apiRequest", "url": "https://api.test", "method": "POST"},
        {"type": "teleport", "where": {"to": "Mars"}},
        {"type": "endCall"},
    ]}}));
    let names: Vec<(&str, &Target)> =
        conversion.draft.tools.iter().map(|tool| (tool.name.as_str(), &tool.target)).collect();
    assert_eq!(
        names,
        [("transfer", &Target::TransferCall), ("endCall", &Target::EndCall), ("dtmf", &Target::SendDtmf)]
    );
    let transfer = &conversion.draft.tools[0];
    assert_eq!(transfer.parameters["properties"]["destination"]["enum"], json!(["+15550100"]));
    assert_eq!(transfer.settings.destinations.len(), 1);
    for (path, wanted) in [
        ("[0].destinations[0].number", Status::Carried),
        ("[0].destinations[0].transferPlan.mode", Status::Lost),
        ("[0].destinations[1].assistantName", Status::Lost),
        ("[1].type", Status::Lost),
        ("[2].type", Status::Carried),
        ("[3].sipInfoDtmfEnabled", Status::Carried),
        ("[4].url", Status::Lost),
        ("[5].where.to", Status::Lost),
        ("[6].type", Status::Lost),
    ] {
        assert_eq!(status(&conversion, &format!("model.tools{path}")).0, wanted, "{path}");
    }
}

#[test]
fn silence_is_filled_once() {
    let hook = |do_: Value| json!({"on": "customer.speech.timeout", "do": do_, "options": {"timeoutSeconds": 10}});
    let conversion = plain(json!({
        "hooks": [
            hook(json!([{"type": "say", "prompt": "Ask."}])),
            hook(json!([{"type": "say", "exact": ["Still there?", "Hello?"]}])),
            {"on": "call.ending", "do": [{"type": "say", "exact": "Bye"}]},
        ],
        "messagePlan": {"idleMessages": ["Hm?"], "idleTimeoutSeconds": 5},
    }));
    let idle = conversion.draft.realtime.call.idle.as_ref().unwrap();
    assert_eq!((idle.after_ms, idle.times, idle.messages.len()), (10_000, 3, 2));
    assert_eq!(status(&conversion, "hooks[0].do[0].prompt"), (Status::Lost, true));
    assert_eq!(status(&conversion, "hooks[1].do[0].exact[1]"), (Status::Carried, false));
    assert_eq!(status(&conversion, "hooks[2].on"), (Status::Lost, true));
    assert_eq!(status(&conversion, "messagePlan.idleMessages[0]"), (Status::Lost, true));
    let old = plain(json!({"messagePlan": {"idleMessages": ["Hm?"], "idleTimeoutSeconds": 5}}));
    assert_eq!(old.draft.realtime.call.idle.unwrap().after_ms, 5_000);
}

#[test]
fn old_assistants_are_folded_in() {
    let conversion = plain(json!({
        "serverUrl": "https://tools.test/old", "serverUrlSecret": "s", "forwardingPhoneNumber": "+15550199",
        "endCallFunctionEnabled": true, "dialKeypadFunctionEnabled": false, "recordingEnabled": false, "hipaaEnabled": true,
        "backgroundDenoisingEnabled": false, "numWordsToInterruptAssistant": 2, "voice": "jennifer-playht",
        "model": {"systemPrompt": "Be kind.", "functions": [
            {"name": "book", "description": "Books.", "parameters": {"type": "object", "properties": {}}, "extra": 1}]},
    }));
    let draft = &conversion.draft;
    let names: Vec<&str> = draft.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["book", "endCall", "transferCall"]);
    assert_eq!((draft.instructions.as_str(), draft.realtime.noise_reduction), ("Be kind.", None));
    assert_eq!(draft.realtime.call.recording, Some(false));
    assert_eq!(draft.realtime.call.interrupt_after_words, Some(2));
    assert_eq!(status(&conversion, "hipaaEnabled"), (Status::Lost, true));
    assert_eq!(status(&conversion, "serverUrlSecret"), (Status::Lost, true));
    assert_eq!(status(&conversion, "model.functions[0].name"), (Status::Carried, false));
    assert_eq!(status(&conversion, "model.functions[0].extra"), (Status::Lost, true));
    assert_eq!(status(&conversion, "voice"), (Status::Approximated, true));
}

#[test]
fn fields_of_the_future_are_lost_and_told() {
    let conversion = plain(json!({"telepathy": {"enabled": false, "range": [1, 2]}}));
    for path in ["telepathy.enabled", "telepathy.range[0]", "telepathy.range[1]"] {
        assert_eq!(status(&conversion, path), (Status::Lost, true), "{path}");
    }
}
