//! From a webhook and what the replica says to a plan: answer, ask the origin, or deliver to it.
//!
//! The replica may be a minute old. What it says is acted on here only where that can be mended (the origin checks a
//! stream that opens); a call that would be refused or leave for Vapi and a message that would be skipped are the origin's
//! to judge.

use serde::de::DeserializeOwned;
use shared::AgentId;
use shared::decision::{Rejection, VapiDecision, VoiceDecision, decide_vapi, decide_voice};
use shared::route::{AssistantRoute, Lookup, NumberRoute};
use shared::stream_token::StreamGrant;
use shared::twilio::answer::{self, Back, path};
use shared::twilio::webhook::CallWebhook;
use shared::vapi::answer::{Refusal, refuse};
use shared::vapi::message::{Message, MessageType};

use crate::admit::{TwilioWebhook, Webhook, public_base};
use crate::forward::Forwarding;
use crate::head::Head;
use crate::reply::Reply;
use crate::settings::Settings;

// Time limits of one forwarding, in milliseconds. What a caller or a sender may wait in all is more: the replica comes
// before it, the queue or a spoken line after it.
/// A caller hears nothing until the answer: it comes within 5 s whatever happens, the replica's time included.
const VOICE_LIMIT_MS: u32 = 3_500;
/// The origin creates the call at Vapi, for which it takes up to 3 s, and then answers: cut off before that, a call that
/// exists at Vapi would be lost. Longer would be more than 5 s with the replica's time.
const BYPASS_LIMIT_MS: u32 = 3_800;
/// The queue has to follow within the sender's limit.
const EVENT_LIMIT_MS: u32 = 3_000;
/// Vapi gives up after 7.5 s, whatever the server's settings say, and its caller hears nothing meanwhile.
const ASSISTANT_LIMIT_MS: u32 = 3_800;
/// Vapi gives up after 20 s unless the server's settings say otherwise.
const QUESTION_LIMIT_MS: u32 = 18_000;

/// What the replica gave for a webhook's route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replica {
    /// The webhook has no route to look up.
    NotAsked,
    /// The value under the key, if there is one.
    Read(Option<String>),
    /// It failed, or it took too long.
    Failed,
}

/// How the look-up went, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// There was nothing to look up.
    NotAsked,
    /// The route was there.
    Hit,
    /// The route was not there.
    Miss,
    /// There was a value that is no route, or another's.
    Unparsable,
    /// The replica did not answer.
    Failed,
}

impl ReplicaState {
    /// The word in the log.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::NotAsked => None,
            Self::Hit => Some("hit"),
            Self::Miss => Some("miss"),
            Self::Unparsable => Some("unparsable"),
            Self::Failed => Some("failed"),
        }
    }
}

/// What else a decision depends on.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The Worker's settings.
    pub settings: &'a Settings,
    /// The request.
    pub head: &'a Head,
    /// Unix seconds.
    pub now: u64,
}

/// What is done with one webhook, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One word for the log.
    pub decision: &'static str,
    /// Why a call is rejected, for the log.
    pub reason: Option<&'static str>,
    /// The agent, if the replica named it.
    pub agent_id: Option<AgentId>,
    /// How the look-up went.
    pub replica: ReplicaState,
    /// What is done.
    pub action: Action,
}

/// What is done with one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The edge answers, and then tells the origin which call is coming, so that it can prepare itself.
    Announce(Reply),
    /// The origin is asked or told.
    Forward(Forwarding),
}

impl Plan {
    fn new(decision: &'static str, replica: ReplicaState, action: Action) -> Self {
        Self { decision, reason: None, agent_id: None, replica, action }
    }

    fn of_agent(self, agent_id: AgentId) -> Self {
        Self { agent_id: Some(agent_id), ..self }
    }
}

/// Decides one webhook.
pub fn decide(webhook: &Webhook, replica: &Replica, context: Context<'_>) -> Plan {
    match webhook {
        Webhook::Voice(webhook) => voice(&webhook.call, replica, context),
        Webhook::Resume(webhook) => {
            let action = ask(VOICE_LIMIT_MS, hold(&resume_path(&webhook.call, context), context));
            Plan::new("resume", ReplicaState::NotAsked, action)
        }
        Webhook::CallEvent(TwilioWebhook { .. }) => {
            let forwarding = Forwarding::Deliver { limit_ms: EVENT_LIMIT_MS, accepted: Reply::nothing() };
            Plan::new("deliver", ReplicaState::NotAsked, Action::Forward(forwarding))
        }
        Webhook::Vapi(message) => vapi(message, replica),
    }
}

fn ask(limit_ms: u32, otherwise: Reply) -> Action {
    Action::Forward(Forwarding::Ask { limit_ms, otherwise })
}

/// Where Twilio asks again: what it told with this request is not told again.
fn resume_path(call: &CallWebhook, Context { head, .. }: Context<'_>) -> String {
    Back::read(head.query(), call.dialled).map_or_else(|| path::RESUME.to_owned(), Back::path)
}

fn hold(path: &str, Context { settings, head, .. }: Context<'_>) -> Reply {
    Reply::twiml(answer::hold(public_base(settings, head), path, answer::attempt(head.query())))
}

fn voice(call: &CallWebhook, replica: &Replica, context: Context<'_>) -> Plan {
    let Some(number) = &call.to else {
        // A SIP or client address: no route has it, and the origin records that it was called.
        return reject(&Rejection::NotInService, ReplicaState::NotAsked);
    };
    let (route, state) = read(replica, |route: &NumberRoute| route.number == *number);
    match decide_voice(Lookup::Replica(route.as_ref())) {
        VoiceDecision::Bridge { agent_id } => {
            let Context { settings, head, now } = context;
            let token = StreamGrant::new(call.call_sid.clone(), agent_id, now).mint(&settings.hop_secret);
            let twiml = answer::bridge(&settings.media_url, public_base(settings, head), token);
            Plan::new("bridge", state, Action::Announce(Reply::twiml(twiml))).of_agent(agent_id)
        }
        // Vapi does not give the call back, and its messages count only if the origin has the call as Vapi's: it confirms
        // and pins the call. Only when it cannot be reached does the replica's word stand.
        VoiceDecision::RedirectToVapi { agent_id } => {
            let twiml = answer::redirect_to_vapi(&context.settings.vapi_api_url);
            Plan::new("redirect_to_vapi", state, ask(VOICE_LIMIT_MS, Reply::twiml(twiml))).of_agent(agent_id)
        }
        VoiceDecision::BypassToVapi { agent_id } => {
            let action = ask(BYPASS_LIMIT_MS, hold(path::VOICE, context));
            Plan::new("bypass_to_vapi", state, action).of_agent(agent_id)
        }
        VoiceDecision::AskOrigin => Plan::new("ask_origin", state, ask(VOICE_LIMIT_MS, hold(path::VOICE, context))),
        VoiceDecision::Reject(rejection) => reject(&rejection, state),
    }
}

/// A rejection cannot be undone and the replica may be a minute old: the origin confirms and records it. Only when it
/// cannot be reached does the replica's word stand.
fn reject(rejection: &Rejection, state: ReplicaState) -> Plan {
    let action = ask(VOICE_LIMIT_MS, Reply::twiml(answer::reject(rejection)));
    let agent_id = match rejection {
        Rejection::VapiNumber { agent_id } | Rejection::CrossSystem { agent_id, .. } => Some(*agent_id),
        Rejection::NotInService => None,
    };
    Plan { reason: Some(rejection.reason()), agent_id, ..Plan::new("reject", state, action) }
}

fn vapi(message: &Message, replica: &Replica) -> Plan {
    let (route, state) = read(replica, |_: &AssistantRoute| true);
    // The pin of a call is known to the origin only.
    let (decision, refusal) = match decide_vapi(None, Lookup::Replica(route.as_ref()), message.call_created_at) {
        VapiDecision::Process => ("process", Refusal::Unavailable),
        // A message that is skipped is lost, and the replica may be a minute old: it was perhaps read before the agent
        // came back to Vapi. The origin confirms and records it; to a question that it cannot be asked, the replica's
        // word is the answer.
        VapiDecision::Skip => ("skip", Refusal::Switched),
        VapiDecision::AskOrigin | VapiDecision::Unknown => ("ask_origin", Refusal::Unavailable),
    };
    let ours = Reply::json(&refuse(message, refusal));
    let forwarding = match &message.kind {
        MessageType::AssistantRequest => Forwarding::Ask { limit_ms: ASSISTANT_LIMIT_MS, otherwise: ours },
        kind if kind.needs_answer() => Forwarding::Ask { limit_ms: QUESTION_LIMIT_MS, otherwise: ours },
        // For an event the answer is the same empty object, whether it was taken or kept.
        _ => Forwarding::Deliver { limit_ms: EVENT_LIMIT_MS, accepted: ours },
    };
    let plan = Plan::new(decision, state, Action::Forward(forwarding));
    Plan { agent_id: route.map(|route| route.agent_id), ..plan }
}

fn read<R: DeserializeOwned>(replica: &Replica, belongs: impl Fn(&R) -> bool) -> (Option<R>, ReplicaState) {
    match replica {
        Replica::NotAsked => (None, ReplicaState::NotAsked),
        Replica::Failed => (None, ReplicaState::Failed),
        Replica::Read(None) => (None, ReplicaState::Miss),
        Replica::Read(Some(value)) => match serde_json::from_str(value).ok().filter(belongs) {
            Some(route) => (Some(route), ReplicaState::Hit),
            None => (None, ReplicaState::Unparsable),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::stream_token;
    use shared::twilio::webhook::{CallStatus, DialOutcome};

    use super::*;
    use crate::admit::tests::{NOW, head};
    use crate::settings::tests::settings;
    use crate::step::REPLICA_LIMIT_MS;

    const AGENT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn plan(webhook: &Webhook, replica: &Replica, query: &str) -> Plan {
        let head = head("POST", &format!("/twilio/voice{query}"), &[]);
        decide(webhook, replica, Context { settings: &settings(), head: &head, now: NOW })
    }

    fn voice_to(to: Option<&str>) -> Webhook {
        let call = CallWebhook {
            call_sid: "CA01".parse().unwrap(),
            account_sid: None,
            to: to.map(|to| to.parse().unwrap()),
            from: None,
            status: CallStatus::Ringing,
            dialled: None,
        };
        Webhook::Voice(TwilioWebhook { call, delivery: "d".into() })
    }

    #[test]
    fn a_call_that_waits_keeps_what_it_came_back_from() {
        let Webhook::Voice(mut webhook) = voice_to(None) else { panic!("not a call") };
        webhook.call.dialled = Some(DialOutcome::Busy);
        let held = |query: &str| {
            let head = head("POST", &format!("/twilio/resume{query}"), &[]);
            let settings = settings();
            let context = Context { settings: &settings, head: &head, now: NOW };
            format!("{:?}", decide(&Webhook::Resume(webhook.clone()), &Replica::NotAsked, context).action)
        };
        assert!(
            held("?after=2").contains("/twilio/resume?after=2&amp;dialled=busy&amp;attempt=2"),
            "{}",
            held("?after=2")
        );
        assert!(held("").contains("/twilio/resume?attempt=2"), "{}", held(""));
    }

    fn number(number_system: &str, agent_system: &str, more: &[(&str, &str)]) -> Replica {
        let mut route = json!({"revision": 1, "number": "+15550100", "numberSystemType": number_system,
            "agentId": AGENT, "agentSystemType": agent_system});
        for (name, value) in more {
            route[*name] = json!(value);
        }
        Replica::Read(Some(route.to_string()))
    }

    fn assistant(system: &str, switched_at: Option<&str>) -> Replica {
        let route = json!({"revision": 1, "agentId": AGENT, "agentSystemType": system, "switchedAt": switched_at});
        Replica::Read(Some(route.to_string()))
    }

    fn vapi_message(message: &Value) -> Webhook {
        Webhook::Vapi(Box::new(Message::parse(json!({ "message": message }).to_string().as_bytes()).unwrap()))
    }

    fn answered(plan: &Plan) -> &Reply {
        match &plan.action {
            Action::Announce(reply) => reply,
            Action::Forward(_) => panic!("{plan:?}"),
        }
    }

    fn asked(plan: &Plan) -> (u32, &Reply) {
        match &plan.action {
            Action::Forward(Forwarding::Ask { limit_ms, otherwise }) => (*limit_ms, otherwise),
            _ => panic!("{plan:?}"),
        }
    }

    #[test]
    fn who_waits_in_silence_waits_less_than_5_s() {
        for limit_ms in [VOICE_LIMIT_MS, BYPASS_LIMIT_MS, ASSISTANT_LIMIT_MS] {
            assert!(REPLICA_LIMIT_MS + limit_ms <= 4_800, "{limit_ms}");
        }
    }

    #[test]
    fn a_bridged_call_needs_no_origin() {
        let plan = plan(&voice_to(Some("+15550100")), &number("openai-realtime", "openai-realtime", &[]), "");
        assert_eq!((plan.decision, plan.replica), ("bridge", ReplicaState::Hit));
        assert!(matches!(plan.action, Action::Announce(_)), "{plan:?}");
        let twiml = &answered(&plan).body;
        let token = twiml.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let grant = stream_token::verify("hop-secret", NOW, token, &"CA01".parse().unwrap()).unwrap();
        assert_eq!(Some(grant.agent_id), plan.agent_id);
        assert!(twiml.contains("url=\"wss://origin.example/media-stream\""), "{twiml}");
        assert!(twiml.contains(">https://edge.example/twilio/resume</Redirect>"), "{twiml}");
    }

    #[test]
    fn a_call_of_vapis() {
        let to = voice_to(Some("+15550100"));
        let redirected = plan(&to, &number("vapi", "vapi", &[("vapiHandover", "redirect")]), "");
        assert!(asked(&redirected).1.body.contains(">https://api.vapi.ai/twilio/inbound_call</Redirect>"));
        let bypassed = plan(&to, &number("vapi", "vapi", &[("vapiHandover", "bypass")]), "?attempt=2");
        assert_eq!(bypassed.decision, "bypass_to_vapi");
        assert!(asked(&bypassed).1.body.contains("?attempt=3</Redirect>"), "{bypassed:?}");
    }

    #[test]
    fn a_rejection_is_the_origins_to_confirm() {
        let to = voice_to(Some("+15550100"));
        for (replica, reason, spoken) in [
            (number("vapi", "vapi", &[]), "vapi_number", "cannot take your call"),
            (number("vapi", "openai-realtime", &[]), "cross_system", "cannot take your call"),
            (number("openai-realtime", "vapi", &[("fallbackNumber", "+15550199")]), "cross_system", "+15550199"),
        ] {
            let plan = plan(&to, &replica, "");
            assert_eq!((plan.decision, plan.reason), ("reject", Some(reason)));
            assert!(asked(&plan).1.body.contains(spoken), "{plan:?}");
        }
        let plan = plan(&voice_to(None), &Replica::NotAsked, "");
        assert_eq!(plan.reason, Some("not_in_service"));
        assert!(asked(&plan).1.body.contains("not in service"));
    }

    #[test]
    fn in_doubt_the_origin_is_asked_and_the_caller_held() {
        let other = json!({"revision": 1, "number": "+15550101", "numberSystemType": "openai-realtime",
            "agentId": AGENT, "agentSystemType": "openai-realtime"});
        for (replica, state) in [
            (Replica::Read(None), ReplicaState::Miss),
            (Replica::Failed, ReplicaState::Failed),
            (Replica::Read(Some("{".into())), ReplicaState::Unparsable),
            (number("other", "vapi", &[]), ReplicaState::Unparsable),
            (Replica::Read(Some(other.to_string())), ReplicaState::Unparsable),
        ] {
            let first = plan(&voice_to(Some("+15550100")), &replica, "");
            assert_eq!((first.decision, first.replica), ("ask_origin", state));
            assert!(asked(&first).1.body.contains("?attempt=2</Redirect>"));
            let last = plan(&voice_to(Some("+15550100")), &replica, "?attempt=4");
            assert_eq!(asked(&last).1.body, answer::apologise());
        }
    }

    #[test]
    fn vapis_questions_have_the_senders_time() {
        let tools = json!({"type": "tool-calls", "call": {"id": "c", "assistantId": "a"},
            "toolCallList": [{"id": "t1", "function": {"name": "f", "arguments": {}}}]});
        let tool_plan = plan(&vapi_message(&tools), &assistant("vapi", None), "");
        assert_eq!(tool_plan.decision, "process");
        let (limit_ms, otherwise) = asked(&tool_plan);
        assert_eq!((limit_ms, otherwise.status), (18_000, 200));
        assert!(otherwise.body.contains("\"toolCallId\":\"t1\""));
        let request = plan(&vapi_message(&json!({"type": "assistant-request"})), &Replica::NotAsked, "");
        assert_eq!((request.decision, asked(&request).0), ("ask_origin", 3_800));
    }

    #[test]
    fn vapis_events_are_delivered() {
        let event = vapi_message(&json!({"type": "status-update", "status": "ended", "call": {"id": "c"}}));
        let accepted = Reply::json(&json!({}));
        assert_eq!(
            plan(&event, &Replica::Read(None), "").action,
            Action::Forward(Forwarding::Deliver { limit_ms: 3_000, accepted })
        );
    }

    #[test]
    fn a_skip_is_the_origins_to_confirm() {
        let switched = assistant("openai-realtime", Some("2026-11-22T12:00:00Z"));
        let message = |kind: &str, created: &str| {
            vapi_message(&json!({"type": kind, "call": {"id": "c", "assistantId": "a", "createdAt": created},
                "toolCallList": [{"id": "t1", "function": {"name": "f"}}]}))
        };
        let question = |created| plan(&message("tool-calls", created), &switched, "");
        let skipped = question("2026-11-22T12:00:00Z");
        assert_eq!((skipped.decision, skipped.agent_id.map(|id| id.to_string()).as_deref()), ("skip", Some(AGENT)));
        assert!(asked(&skipped).1.body.contains("no longer served"), "{skipped:?}");
        assert_eq!(question("2026-11-22T11:59:59Z").decision, "process");
        assert_eq!(question("?").decision, "ask_origin");
        let event = plan(&message("hang", "2026-11-22T12:00:00Z"), &switched, "");
        let accepted = Reply::json(&json!({}));
        assert_eq!(event.decision, "skip");
        assert_eq!(event.action, Action::Forward(Forwarding::Deliver { limit_ms: 3_000, accepted }));
    }
}
