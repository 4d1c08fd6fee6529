//! One webhook's way through the Worker, as a machine: it is told what happened and says what is done next. It does no
//! I/O and awaits nothing; `entry.js` does what it says.
//!
//! A panic in here is an exception there, which loses no event: see `salvage.js`.

use std::rc::Rc;

use serde_json::json;
use shared::AgentId;
use shared::hop::SignedRequest;
use shared::twilio::answer::path;

use crate::admit::{Endpoint, MAX_BODY_BYTES, Refused, Webhook, admit, enter};
use crate::decide::{self, Action, Plan, Replica, ReplicaState, decide};
use crate::forward::{Forwarding, Next, Verdict};
use crate::head::Head;
use crate::log::Line;
use crate::metric::{self, Point};
use crate::reply::{Problem, Reply};
use crate::retry::{Body, Event};
use crate::settings::Settings;
use crate::step::{ANNOUNCE_LIMIT_MS, Post, Step};

/// What a visit is to the Worker as a whole.
#[derive(Clone)]
pub struct Worker<'a> {
    /// The settings, if they are complete.
    pub settings: Option<Rc<Settings>>,
    /// The deployed version.
    pub version: &'a str,
}

/// One request.
pub struct Visit {
    settings: Option<Rc<Settings>>,
    head: Head,
    /// Unix time in milliseconds.
    started_at: u64,
    stage: Stage,
    line: Option<Printed>,
    point: Option<Point>,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// JSON.
    pub text: String,
    /// Whether somebody should look at it.
    pub is_error: bool,
}

/// What the visit waits for.
enum Stage {
    /// The body.
    Body(Endpoint),
    /// The route.
    Route(Carried),
    /// Whether its source has been refused too often.
    Source(Problem),
    /// The origin.
    Origin(Carried, Told, Forwarding),
    /// The compressed body.
    Compressed(Carried, Told, Reply),
    /// The queue.
    Queue(Carried, Told, Reply),
    /// Nothing but what may go wrong with an announcement: it has been answered.
    Announced(Carried),
    /// Nothing: it has been answered.
    Over,
}

/// A webhook with its body.
struct Carried {
    webhook: Webhook,
    body: Vec<u8>,
}

/// What the log is told.
#[derive(Default)]
struct Told {
    decision: &'static str,
    reason: Option<&'static str>,
    agent_id: Option<AgentId>,
    replica: Option<&'static str>,
    origin: Option<u16>,
    fault: Option<String>,
    is_error: bool,
}

impl Visit {
    /// A request that arrived at `now`, in unix milliseconds, and what is done with it first.
    pub fn begin(head: Head, worker: &Worker<'_>, now: u64) -> (Self, Step) {
        let mut visit = Self {
            settings: worker.settings.clone(),
            head,
            started_at: now,
            stage: Stage::Over,
            line: None,
            point: None,
        };
        let step = visit.enter(worker, now);
        (visit, step)
    }

    /// What is to be logged since the last time.
    pub fn take_line(&mut self) -> Option<Printed> {
        self.line.take()
    }

    /// What is to be counted since the last time.
    pub fn take_point(&mut self) -> Option<Point> {
        self.point.take()
    }

    fn enter(&mut self, worker: &Worker<'_>, now: u64) -> Step {
        let endpoint = match Endpoint::of(&self.head) {
            Ok(endpoint) => endpoint,
            Err(problem) => return self.refuse(problem, now),
        };
        if endpoint == Endpoint::Health {
            let version = worker.version;
            return Step::Answer(match self.settings {
                Some(_) => Reply::json(&json!({"status": "ok", "version": version})),
                None => Reply::json_with_status(503, &json!({"status": "misconfigured", "version": version})),
            });
        }
        let Some(settings) = self.settings.clone() else { return self.refuse(Problem::Misconfigured, now) };
        if let Err(problem) = enter(endpoint, &self.head, &settings, seconds(now)) {
            return self.count(problem);
        }
        self.stage = Stage::Body(endpoint);
        Step::Body
    }

    /// The body was read.
    pub fn body(&mut self, body: Vec<u8>, now: u64) -> Step {
        let (Stage::Body(endpoint), Some(settings)) = (self.take(), self.settings.clone()) else {
            return Step::out_of_order();
        };
        if u32::try_from(body.len()).map_or(true, |length| length > MAX_BODY_BYTES) {
            return self.count(Problem::BodyTooLarge);
        }
        let webhook = match admit(endpoint, &self.head, &body, &settings, seconds(now)) {
            Ok(webhook) => webhook,
            Err(Refused { problem, proven: true }) => return self.refuse(problem, now),
            Err(Refused { problem, proven: false }) => return self.count(problem),
        };
        let carried = Carried { webhook, body };
        match carried.webhook.route_key() {
            Some(key) => {
                self.stage = Stage::Route(carried);
                Step::Look { key }
            }
            None => self.decide(carried, &Replica::NotAsked, None, now),
        }
    }

    /// The body is longer than it may be, or it could not be read.
    pub fn no_body(&mut self, too_long: bool) -> Step {
        let Stage::Body(_) = self.take() else { return Step::out_of_order() };
        self.count(if too_long { Problem::BodyTooLarge } else { Problem::UnreadableBody })
    }

    /// What the replica has under the key, or why it did not say.
    pub fn route(&mut self, found: Result<Option<String>, String>, now: u64) -> Step {
        let Stage::Route(carried) = self.take() else { return Step::out_of_order() };
        match found {
            Ok(value) => self.decide(carried, &Replica::Read(value), None, now),
            Err(fault) => self.decide(carried, &Replica::Failed, Some(fault), now),
        }
    }

    /// Whether the source may be refused once more.
    pub fn counted(&mut self, within_limit: bool, now: u64) -> Step {
        let Stage::Source(problem) = self.take() else { return Step::out_of_order() };
        self.refuse(if within_limit { problem } else { Problem::TooManyRefusals }, now)
    }

    /// The origin's status, or why there is none.
    pub fn origin(&mut self, answer: Result<u16, String>, now: u64) -> Step {
        let Stage::Origin(carried, told, forwarding) = self.take() else { return Step::out_of_order() };
        let (status, fault) = match answer {
            Ok(status) => (Some(status), told.fault.clone()),
            Err(fault) => (None, Some(fault)),
        };
        let is_error = Verdict::of(status) != Verdict::Taken;
        let told = Told { origin: Some(status.unwrap_or_default()), fault, is_error, ..told };
        match (forwarding.settle(status), status) {
            (Next::PassOn, Some(status)) => {
                self.tell(&carried, &told, status, now);
                Step::PassOn
            }
            // There is no answer to pass on without one.
            (Next::PassOn, None) => self.answer(&carried, &told, Problem::Unavailable.into(), now),
            (Next::Answer(reply), _) => self.answer(&carried, &told, reply, now),
            (Next::Keep { accepted }, _) => {
                let message = Body::text(&carried.body).and_then(|body| self.event(&carried.webhook, body, now));
                self.keep(carried, told, accepted, message)
            }
        }
    }

    /// The body, compressed.
    pub fn compressed(&mut self, bytes: &[u8], now: u64) -> Step {
        let Stage::Compressed(carried, told, accepted) = self.take() else { return Step::out_of_order() };
        match self.event(&carried.webhook, Body::gzip(bytes), now) {
            Some(message) => self.keep(carried, told, accepted, Some(message)),
            None => self.settle(&carried, told, accepted, Err("the event is too long for the queue".to_owned()), now),
        }
    }

    /// Whether the queue has the event.
    pub fn kept(&mut self, kept: Result<(), String>, now: u64) -> Step {
        match self.take() {
            // What cannot be compressed cannot be kept.
            Stage::Queue(carried, told, accepted) | Stage::Compressed(carried, told, accepted) => {
                self.settle(&carried, told, accepted, kept, now)
            }
            _ => Step::out_of_order(),
        }
    }

    /// The origin does not know of the call that is coming. It will hear of it from the stream.
    pub fn not_announced(&mut self, fault: &str, now: u64) {
        let Stage::Announced(carried) = self.take() else { return };
        let line = Line {
            webhook: Some(self.head.path()),
            decision: "not_announced",
            call: carried.webhook.call_id(),
            fault: Some(fault),
            ms: now.saturating_sub(self.started_at),
            ..Line::default()
        };
        self.line = Some(Printed { text: line.render(), is_error: false });
    }

    fn take(&mut self) -> Stage {
        std::mem::replace(&mut self.stage, Stage::Over)
    }

    /// Nothing before this has cost more than the sender's own effort, and a proven sender is never limited.
    fn count(&mut self, problem: Problem) -> Step {
        self.stage = Stage::Source(problem);
        Step::Count
    }

    fn refuse(&mut self, problem: Problem, now: u64) -> Step {
        self.point("refuse", problem.code(), problem.status(), now);
        // Anybody can ask for a path that is not there; the runtime's own log has those.
        if problem != Problem::NotFound {
            let line = Line {
                webhook: Some(self.head.path()),
                decision: "refuse",
                reason: Some(problem.code()),
                status: Some(problem.status()),
                ms: now.saturating_sub(self.started_at),
                ..Line::default()
            };
            self.line = Some(Printed { text: line.render(), is_error: problem == Problem::Misconfigured });
        }
        Step::Answer(problem.into())
    }

    fn decide(&mut self, carried: Carried, replica: &Replica, fault: Option<String>, now: u64) -> Step {
        let Some(settings) = self.settings.clone() else { return Step::out_of_order() };
        let context = decide::Context { settings: &settings, head: &self.head, now: seconds(now) };
        let Plan { decision, reason, agent_id, replica, action } = decide(&carried.webhook, replica, context);
        let is_error = matches!(replica, ReplicaState::Failed | ReplicaState::Unparsable);
        let told = Told { decision, reason, agent_id, replica: replica.as_str(), fault, is_error, origin: None };
        match action {
            Action::Announce(reply) => {
                self.tell(&carried, &told, reply.status, now);
                let post = self.post(&settings, path::EXPECTED, &carried.webhook, ANNOUNCE_LIMIT_MS, now);
                self.stage = Stage::Announced(carried);
                Step::Announce(reply, post)
            }
            Action::Forward(forwarding) => {
                let path_and_query = self.head.path_and_query();
                let post = self.post(&settings, path_and_query, &carried.webhook, forwarding.limit_ms(), now);
                self.stage = Stage::Origin(carried, told, forwarding);
                Step::Post(post)
            }
        }
    }

    fn post(&self, settings: &Settings, path_and_query: &str, webhook: &Webhook, limit_ms: u32, now: u64) -> Post {
        let at = seconds(now);
        Post {
            url: format!("{}{path_and_query}", settings.origin_url),
            at,
            signed: SignedRequest { method: "POST", path_and_query, body: &[] }.head(at),
            content_type: self.content_type().to_owned(),
            delivery: webhook.delivery().to_owned(),
            limit_ms,
        }
    }

    fn keep(&mut self, carried: Carried, told: Told, accepted: Reply, message: Option<String>) -> Step {
        if let Some(message) = message {
            self.stage = Stage::Queue(carried, told, accepted);
            Step::Keep { message }
        } else {
            self.stage = Stage::Compressed(carried, told, accepted);
            Step::Compress
        }
    }

    fn settle(&mut self, carried: &Carried, told: Told, accepted: Reply, kept: Result<(), String>, now: u64) -> Step {
        let reply = Next::kept(kept.is_ok(), accepted);
        let decision = if kept.is_ok() { "keep" } else { "lose" };
        let told = Told { decision, is_error: true, fault: kept.err().or(told.fault), ..told };
        self.answer(carried, &told, reply, now)
    }

    fn answer(&mut self, carried: &Carried, told: &Told, reply: Reply, now: u64) -> Step {
        self.tell(carried, told, reply.status, now);
        Step::Answer(reply)
    }

    fn point(&mut self, decision: &'static str, reason: &'static str, status: u16, now: u64) {
        let ms = now.saturating_sub(self.started_at);
        self.point = Some(Point { decision, webhook: metric::webhook(self.head.path()), reason, status, ms });
    }

    fn tell(&mut self, carried: &Carried, told: &Told, status: u16, now: u64) {
        self.point(told.decision, told.reason.unwrap_or_default(), status, now);
        let kept = matches!(told.decision, "keep" | "lose");
        let line = Line {
            webhook: Some(self.head.path()),
            decision: told.decision,
            reason: told.reason,
            call: carried.webhook.call_id(),
            agent: told.agent_id,
            delivery: kept.then(|| carried.webhook.delivery()),
            replica: told.replica,
            origin: told.origin,
            fault: told.fault.as_deref(),
            attempt: None,
            status: Some(status),
            ms: now.saturating_sub(self.started_at),
        };
        self.line = Some(Printed { text: line.render(), is_error: told.is_error });
    }

    fn content_type(&self) -> &str {
        self.head.header("content-type").unwrap_or_default()
    }

    /// The event as the queue takes it; `None` when it is too long.
    fn event(&self, webhook: &Webhook, body: Body<'_>, now: u64) -> Option<String> {
        let event = Event {
            path: self.head.path_and_query().into(),
            content_type: self.content_type().into(),
            delivery: webhook.delivery().into(),
            enqueued_at: now,
            body,
        };
        event.to_message()
    }
}

fn seconds(ms: u64) -> u64 {
    std::time::Duration::from_millis(ms).as_secs()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use shared::hmac::{Algorithm, mac};

    use super::*;
    use crate::admit::tests::{NOW, head};
    use crate::settings::tests::settings;

    const AT: u64 = NOW * 1000;
    const EVENT: &[u8] = br#"{"message":{"type":"hang","call":{"id":"c1"}}}"#;

    fn worker() -> Worker<'static> {
        Worker { settings: Some(Rc::new(settings())), version: "v1" }
    }

    fn begin(path: &str, headers: &[(&str, &str)]) -> (Visit, Step) {
        Visit::begin(head("POST", path, headers), &worker(), AT)
    }

    fn vapi() -> Visit {
        let (visit, step) =
            begin("/api/vapi/webhook", &[("content-type", "application/json"), ("x-vapi-secret", "vapi-secret")]);
        assert_eq!(step, Step::Body);
        visit
    }

    fn answer(step: &Step) -> &Reply {
        match step {
            Step::Answer(reply) | Step::Announce(reply, _) => reply,
            _ => panic!("{step:?}"),
        }
    }

    fn line(visit: &mut Visit) -> serde_json::Value {
        serde_json::from_str(&visit.take_line().unwrap().text).unwrap()
    }

    #[test]
    fn a_call_of_which_the_replica_knows_all() {
        let body = b"CallSid=CA01&To=%2B15550100&CallStatus=ringing";
        let text = "https://edge.example/twilio/voiceCallSidCA01CallStatusringingTo+15550100";
        let signature = STANDARD.encode(mac(Algorithm::Sha1, b"current", &[text.as_bytes()]));
        let form = "application/x-www-form-urlencoded";
        let (mut visit, step) = begin("/twilio/voice", &[("content-type", form), ("x-twilio-signature", &signature)]);
        assert_eq!(step, Step::Body);
        assert_eq!(visit.body(body.to_vec(), AT + 1), Step::Look { key: "number:+15550100".into() });
        let route = json!({"revision": 1, "number": "+15550100", "numberSystemType": "openai-realtime",
            "agentId": "01890a5d-ac96-774b-bcce-b302099a8057", "agentSystemType": "openai-realtime"});
        let step = visit.route(Ok(Some(route.to_string())), AT + 40);
        assert!(answer(&step).body.contains("<Stream "), "{step:?}");
        let line = self::line(&mut visit);
        assert_eq!((&line["decision"], &line["call"], &line["ms"]), (&json!("bridge"), &json!("CA01"), &json!(40)));
        let Step::Announce(_, post) = step else { panic!("the origin hears of it") };
        assert_eq!((post.url.as_str(), post.content_type.as_str()), ("http://127.0.0.1:8080/twilio/expected", form));
        assert!(post.signed.ends_with(".POST./twilio/expected.") && post.delivery.starts_with("twilio:"), "{post:?}");
        visit.not_announced("timed out", AT + 2040);
        let line = self::line(&mut visit);
        assert_eq!((&line["decision"], &line["call"]), (&json!("not_announced"), &json!("CA01")));
    }

    #[test]
    fn an_event_is_kept_when_the_origin_does_not_take_it() {
        for answer_of_origin in [Err("timed out".to_owned()), Ok(503)] {
            let mut visit = vapi();
            let Step::Post(Post { url, content_type, .. }) = visit.body(EVENT.to_vec(), AT) else { panic!("posts") };
            assert!(url.ends_with("/api/vapi/webhook") && content_type == "application/json");
            let Step::Keep { message } = visit.origin(answer_of_origin, AT + 3000) else { panic!("keeps") };
            let event: Event<'_> = serde_json::from_str(&message).unwrap();
            assert_eq!((event.enqueued_at, event.body), (AT + 3000, Body::text(EVENT).unwrap()));
            let step = visit.kept(Ok(()), AT + 3010);
            assert_eq!((answer(&step).status, answer(&step).body.as_str()), (200, "{}"));
            assert!(visit.take_line().unwrap().is_error);
        }
    }

    #[test]
    fn an_event_that_nothing_takes_is_the_senders_to_repeat() {
        let mut visit = vapi();
        visit.body(EVENT.to_vec(), AT);
        visit.origin(Ok(500), AT);
        assert_eq!(answer(&visit.kept(Err("overloaded".into()), AT)).status, 503);
        assert_eq!(line(&mut visit)["decision"], "lose");
    }

    #[test]
    fn a_long_event_is_compressed_first() {
        let body = [&EVENT[..EVENT.len() - 2], b",\"x\":\"", &b"a".repeat(130_000), b"\"}}"].concat();
        let mut visit = vapi();
        visit.body(body, AT);
        assert_eq!(visit.origin(Ok(500), AT), Step::Compress);
        let Step::Keep { message } = visit.compressed(b"short", AT) else { panic!("keeps") };
        assert!(message.contains("\"gzip\""), "{message}");
        let mut visit = vapi();
        visit.body([EVENT, &b" ".repeat(130_000)].concat(), AT);
        visit.origin(Ok(500), AT);
        assert_eq!(answer(&visit.compressed(&b"long".repeat(40_000), AT)).status, 503);
        let mut visit = vapi();
        visit.body([EVENT, &b" ".repeat(130_000)].concat(), AT);
        visit.origin(Ok(500), AT);
        assert_eq!(answer(&visit.kept(Err("no memory".into()), AT)).status, 503);
    }

    #[test]
    fn a_request_is_one_point_and_names_nobody() {
        let (mut visit, _) = begin("/twilio/+15550100", &[]);
        let nowhere = Point { decision: "refuse", webhook: "other", reason: "not_found", status: 404, ms: 0 };
        assert_eq!((visit.take_point(), visit.take_point()), (Some(nowhere), None));
        let mut kept = vapi();
        kept.body(EVENT.to_vec(), AT);
        kept.origin(Ok(500), AT + 7);
        assert_eq!(kept.take_point(), None, "it is not over");
        kept.kept(Ok(()), AT + 9);
        let point = Point { decision: "keep", webhook: "/api/vapi/webhook", reason: "", status: 200, ms: 9 };
        assert_eq!(kept.take_point(), Some(point));
        let (mut flood, _) = begin("/twilio/voice", &[("content-type", "application/x-www-form-urlencoded")]);
        flood.counted(false, AT);
        assert_eq!(flood.take_point().map(|point| point.reason), Some("too_many_refusals"));
    }

    #[test]
    fn only_the_unproven_are_counted() {
        let from = [("content-type", "application/json")];
        for (within, status) in [(true, 401), (false, 429)] {
            let (mut visit, step) = begin("/api/vapi/webhook", &from);
            assert_eq!(step, Step::Count);
            assert_eq!(answer(&visit.counted(within, AT)).status, status);
        }
        assert_eq!(answer(&vapi().body(b"{}".to_vec(), AT)).status, 400);
        // Too long for anybody: that could be a flood of long bodies.
        assert!(matches!(vapi().no_body(true), Step::Count));
        assert!(matches!(vapi().body(vec![b' '; 1024 * 1024 + 1], AT), Step::Count));
    }

    #[test]
    fn what_comes_out_of_order_is_never_a_success() {
        let (mut over, _) = begin("/nowhere", &[]);
        for step in [over.kept(Ok(()), AT), over.origin(Ok(200), AT), over.body(EVENT.to_vec(), AT)] {
            assert_eq!(answer(&step).status, 503);
        }
        let unset = Worker { settings: None, version: "v1" };
        let (_, step) = Visit::begin(head("GET", "/healthz", &[]), &unset, AT);
        assert_eq!(answer(&step).status, 503);
    }
}
