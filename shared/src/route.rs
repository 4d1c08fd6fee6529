//! Routes: what the edge must know about one number or one Vapi assistant, as replicated to KV.
//!
//! The origin projects them from its tables; `revision` only grows, so a reader can tell old from new.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{AgentId, AssistantId, E164, SystemType};

/// How a number whose calls arrive here, but whose agent is on Vapi, is handed to Vapi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum VapiHandover {
    /// Such a call should not arrive here at all.
    #[default]
    None,
    /// The origin creates the call at Vapi with the provider bypass.
    Bypass,
    /// TwiML `<Redirect>` to Vapi's inbound URL; undocumented at Vapi.
    Redirect,
}

impl VapiHandover {
    /// The wire and database spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bypass => "bypass",
            Self::Redirect => "redirect",
        }
    }
}

/// Where calls to one phone number go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberRoute {
    /// Grows with every change of the number or its agent.
    pub revision: i64,
    /// The number itself.
    pub number: E164,
    /// The number's own system.
    pub number_system_type: SystemType,
    /// The agent that answers.
    pub agent_id: AgentId,
    /// That agent's system.
    pub agent_system_type: SystemType,
    /// What to do while both are on Vapi.
    #[serde(default)]
    pub vapi_handover: VapiHandover,
    /// Whom to dial when the call cannot be answered by the agent.
    #[serde(default)]
    pub fallback_number: Option<E164>,
}

impl NumberRoute {
    /// The KV key of a number's route.
    pub fn key(number: &E164) -> String {
        format!("number:{number}")
    }
}

/// Which system one Vapi assistant's agent is on, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssistantRoute {
    /// Grows with every change of the agent.
    pub revision: i64,
    /// The agent that this assistant belongs to.
    pub agent_id: AgentId,
    /// The agent's system.
    pub agent_system_type: SystemType,
    /// When the agent was last switched; `null` when it never was.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub switched_at: Option<OffsetDateTime>,
}

impl AssistantRoute {
    /// The KV key of an assistant's route.
    pub fn key(assistant: &AssistantId) -> String {
        format!("assistant:{assistant}")
    }
}

/// What a reader found under a route's key, and how far it may trust that.
#[derive(Debug)]
pub enum Lookup<'a, R> {
    /// The edge's replica: it may be a minute old, and a missing value proves nothing.
    Replica(Option<&'a R>),
    /// Postgres: what is missing here does not exist.
    Truth(Option<&'a R>),
}

// By hand: deriving would ask for a route that is `Copy`, but only references to it are held.
impl<R> Clone for Lookup<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Lookup<'_, R> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_shape_is_the_agreed_one() {
        let number = r#"{"revision":12,"number":"+15550100","numberSystemType":"openai-realtime","agentId":"01890a5d-ac96-774b-bcce-b302099a8057","agentSystemType":"openai-realtime","vapiHandover":"none","fallbackNumber":null}"#;
        let route: NumberRoute = serde_json::from_str(number).unwrap();
        assert_eq!(serde_json::to_string(&route).unwrap(), number);
        assert_eq!(NumberRoute::key(&route.number), "number:+15550100");

        let assistant = r#"{"revision":12,"agentId":"01890a5d-ac96-774b-bcce-b302099a8057","agentSystemType":"vapi","switchedAt":null}"#;
        let route: AssistantRoute = serde_json::from_str(assistant).unwrap();
        assert_eq!(serde_json::to_string(&route).unwrap(), assistant);
    }

    #[test]
    fn unknown_system_type_does_not_parse() {
        let text = r#"{"revision":1,"agentId":"01890a5d-ac96-774b-bcce-b302099a8057","agentSystemType":"other"}"#;
        assert!(serde_json::from_str::<AssistantRoute>(text).is_err());
    }
}
