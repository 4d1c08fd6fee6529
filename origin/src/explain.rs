//! Why a call to a number goes where it goes: the decision, the data that it was made on, and what the edge would do
//! with the copy that it has.

use serde::Serialize;
use shared::decision::{VoiceDecision, decide_voice};
use shared::route::{Lookup, NumberRoute, VapiHandover};
use shared::{AgentId, CallId, E164, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::App;
use crate::store::agents::Agent;
use crate::store::numbers::PhoneNumber;
use crate::store::replica::ReplicaState;
use crate::store::{self, StoreError};

/// The whole explanation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The number that is called.
    pub to: E164,
    /// Who calls.
    pub from: Option<E164>,
    /// The decision on the tables as they are now.
    pub decision: &'static str,
    /// The row of the decision table that says so.
    pub row: &'static str,
    /// What it was decided on; `None`: the number is not in service.
    pub route: Option<NumberRoute>,
    /// The number; `None`: nobody has it.
    pub number: Option<NumberFacts>,
    /// Its agent.
    pub agent: Option<AgentFacts>,
    /// Calls from that caller to this number that are going on: each stays on its system, whatever is decided now.
    pub open_calls: Vec<OpenCall>,
    /// Whether the agent's routes have been sent to the edge as they are now.
    pub replica: Option<ReplicaFacts>,
    /// What the edge has at this moment.
    pub edge: Edge,
}

/// A number's part in the decision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberFacts {
    system_type: SystemType,
    vapi_handover: VapiHandover,
    vapi_phone_number_id: Option<String>,
}

/// An agent's part in the decision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentFacts {
    id: AgentId,
    name: String,
    system_type: SystemType,
    #[serde(with = "time::serde::rfc3339::option")]
    switched_at: Option<OffsetDateTime>,
    fallback_number: Option<E164>,
}

/// A call that is going on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenCall {
    id: CallId,
    system_type: SystemType,
    status: &'static str,
}

/// How far the agent's routes have come.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaFacts {
    replicated: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    replicated_at: Option<OffsetDateTime>,
}

/// The edge's copy of the route.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// Whether the edge decides as the tables do.
    pub agrees: bool,
    /// The edge's decision; `None`: it could not be asked.
    pub decision: Option<&'static str>,
    /// The revision of its copy.
    pub revision: Option<i64>,
    /// Its copy.
    pub value: Option<NumberRoute>,
    /// What is to be known about it, in a sentence.
    pub note: String,
}

/// Explains the way of a call. `None`: the number is another project's, or nobody's when a project asks.
pub async fn explain(
    app: &App,
    project: Option<ProjectId>,
    to: &E164,
    from: Option<&E164>,
) -> Result<Option<Explanation>, StoreError> {
    let mut conn = app.db.acquire().await?;
    let number = store::numbers::by_number(&mut conn, to).await?;
    if project.is_some() && number.as_ref().map(|number| number.project_id) != project {
        return Ok(None);
    }
    let route = store::routes::number(&mut conn, to).await?;
    let agent = match number.as_ref().and_then(|number| number.agent_id) {
        Some(id) => store::agents::by_id(&mut conn, id).await?,
        None => None,
    };
    let replica = match &agent {
        Some(agent) => store::replica::of_agents(&mut conn, &[agent.id]).await?.pop(),
        None => None,
    };
    let open_calls = open_calls(&mut conn, number.as_ref(), from).await?;
    drop(conn);

    let decision = decide_voice(Lookup::Truth(route.as_ref()));
    let edge = edge(route.as_ref(), ask_edge(app, to).await);
    Ok(Some(Explanation {
        to: to.clone(),
        from: from.cloned(),
        decision: decision.as_str(),
        row: row(&decision),
        route,
        number: number.map(NumberFacts::from),
        agent: agent.map(AgentFacts::from),
        open_calls,
        replica: replica.map(ReplicaFacts::from),
        edge,
    }))
}

async fn open_calls(
    conn: &mut PgConnection,
    number: Option<&PhoneNumber>,
    from: Option<&E164>,
) -> Result<Vec<OpenCall>, StoreError> {
    let (Some(number), Some(from)) = (number, from) else { return Ok(Vec::new()) };
    let calls = store::calls::open_between(conn, number.project_id, from, &number.number).await?;
    Ok(calls
        .into_iter()
        .map(|call| OpenCall { id: call.id, system_type: call.system_type, status: call.status.as_str() })
        .collect())
}

/// The text under the number's key; or why there is none to be had.
async fn ask_edge(app: &App, number: &E164) -> Result<Option<String>, String> {
    let kv = app.kv().ok_or("the origin has no access to Cloudflare")?;
    let key = NumberRoute::key(number);
    let found = kv.get(std::slice::from_ref(&key)).await;
    found.map(|mut values| values.remove(&key)).map_err(|error| error.to_string())
}

fn edge(truth: Option<&NumberRoute>, copy: Result<Option<String>, String>) -> Edge {
    let unknown = |note| Edge { agrees: false, decision: None, revision: None, value: None, note };
    let text = match copy {
        Ok(text) => text,
        Err(error) => return unknown(format!("What the edge has is not known: {error}.")),
    };
    let value: Option<NumberRoute> = text.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let decision = decide_voice(Lookup::Replica(value.as_ref()));
    let (agrees, note) = match (&value, truth) {
        (None, _) if text.is_some() => {
            (true, "The edge cannot read its copy and asks the origin. Run `tandem replica repair`.".to_owned())
        }
        (None, None) => (true, "The edge has no copy and asks the origin, which refuses the call.".to_owned()),
        (None, Some(_)) => (true, "The edge has no copy and asks the origin.".to_owned()),
        (Some(_), None) => (false, "The edge still has a copy of a route that is gone.".to_owned()),
        (Some(copy), Some(truth)) if copy == truth => (true, "The edge has the route as it is.".to_owned()),
        (Some(copy), Some(truth)) => {
            let what = if copy.revision == truth.revision {
                "another value under the same revision: somebody has changed it there; run `tandem replica repair`"
                    .to_owned()
            } else {
                format!("revision {}, the tables have {}", copy.revision, truth.revision)
            };
            (decision == decide_voice(Lookup::Truth(Some(truth))), format!("The edge has {what}."))
        }
    };
    let revision = value.as_ref().map(|route| route.revision);
    Edge { agrees, decision: Some(decision.as_str()), revision, value, note }
}

/// The row of the decision table, as the README has it.
fn row(decision: &VoiceDecision) -> &'static str {
    use shared::decision::Rejection;
    match decision {
        VoiceDecision::Bridge { .. } => "agent and number are both on openai-realtime: bridge",
        VoiceDecision::BypassToVapi { .. } => {
            "agent and number are both on vapi, the handover is bypass: the origin creates the call at Vapi"
        }
        VoiceDecision::RedirectToVapi { .. } => {
            "agent and number are both on vapi, the handover is redirect: redirect to Vapi's inbound URL"
        }
        VoiceDecision::Reject(Rejection::VapiNumber { .. }) => {
            "agent and number are both on vapi, there is no handover: the call should not arrive here, reject"
        }
        VoiceDecision::Reject(Rejection::CrossSystem { fallback_number: Some(_), .. }) => {
            "agent and number are on different systems: dial the agent's fallback number"
        }
        VoiceDecision::Reject(Rejection::CrossSystem { fallback_number: None, .. }) => {
            "agent and number are on different systems: reject"
        }
        VoiceDecision::Reject(Rejection::NotInService) => "nobody answers this number: reject",
        VoiceDecision::AskOrigin => "not in the replica: ask the origin",
    }
}

impl From<PhoneNumber> for NumberFacts {
    fn from(number: PhoneNumber) -> Self {
        let PhoneNumber { system_type, vapi_handover, vapi_phone_number_id, .. } = number;
        Self { system_type, vapi_handover, vapi_phone_number_id }
    }
}

impl From<Agent> for AgentFacts {
    fn from(agent: Agent) -> Self {
        let Agent { id, name, system_type, switched_at, fallback_number, .. } = agent;
        Self { id, name, system_type, switched_at, fallback_number }
    }
}

impl From<ReplicaState> for ReplicaFacts {
    fn from(state: ReplicaState) -> Self {
        Self { replicated: state.replicated, replicated_at: state.replicated_at }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn route(revision: i64, system: SystemType) -> NumberRoute {
        NumberRoute {
            revision,
            number: "+15550100".parse().unwrap(),
            number_system_type: system,
            agent_id: AgentId(Uuid::nil()),
            agent_system_type: system,
            vapi_handover: VapiHandover::None,
            fallback_number: None,
        }
    }

    fn with_copy(copy: &NumberRoute, truth: Option<&NumberRoute>) -> Edge {
        edge(truth, Ok(Some(serde_json::to_string(copy).unwrap())))
    }

    #[test]
    fn the_edges_copy_is_compared_by_what_it_leads_to() {
        let (old, new) = (route(3, SystemType::Vapi), route(5, SystemType::OpenaiRealtime));
        let same = with_copy(&new, Some(&new));
        assert_eq!((same.agrees, same.decision, same.revision), (true, Some("bridge"), Some(5)));

        let behind = with_copy(&old, Some(&new));
        assert_eq!((behind.agrees, behind.decision), (false, Some("vapi_number")));
        assert!(behind.note.contains("revision 3, the tables have 5"), "{}", behind.note);

        let harmless = with_copy(&NumberRoute { revision: 4, ..new.clone() }, Some(&new));
        assert!(harmless.agrees && harmless.note.contains("revision 4"), "{}", harmless.note);

        let tampered = with_copy(&NumberRoute { revision: 5, ..old.clone() }, Some(&new));
        assert!(!tampered.agrees && tampered.note.contains("same revision"), "{}", tampered.note);

        assert!(!with_copy(&new, None).agrees);
    }

    #[test]
    fn without_a_copy_the_edge_asks() {
        let truth = route(5, SystemType::Vapi);
        for (copy, truth) in [(None, Some(&truth)), (None, None), (Some("{}".to_owned()), Some(&truth))] {
            let edge = edge(truth, Ok(copy));
            assert_eq!((edge.agrees, edge.decision, edge.revision), (true, Some("ask_origin"), None));
        }
        let silent = edge(Some(&truth), Err("Cloudflare cannot be reached".to_owned()));
        assert_eq!((silent.agrees, silent.decision), (false, None));
    }
}
