//! The one decision: what to do with a webhook, given the route. Edge and origin call the same functions.

use time::OffsetDateTime;

use crate::route::{AssistantRoute, Lookup, NumberRoute, VapiHandover};
use crate::{AgentId, E164, SystemType};

/// What to do with an incoming Twilio call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoiceDecision {
    /// Answer with a media stream to the origin.
    Bridge {
        /// The agent that answers.
        agent_id: AgentId,
    },
    /// The origin creates the call at Vapi and answers with Vapi's TwiML.
    BypassToVapi {
        /// The agent whose assistant answers.
        agent_id: AgentId,
    },
    /// Answer with a redirect to Vapi's inbound URL.
    RedirectToVapi {
        /// The agent whose assistant answers.
        agent_id: AgentId,
    },
    /// The call cannot be answered by an agent.
    Reject(Rejection),
    /// The replica does not say; the origin does.
    AskOrigin,
}

impl VoiceDecision {
    /// A word for logs and explanations; for a rejection, its reason.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Bridge { .. } => "bridge",
            Self::BypassToVapi { .. } => "bypass_to_vapi",
            Self::RedirectToVapi { .. } => "redirect_to_vapi",
            Self::Reject(rejection) => rejection.reason(),
            Self::AskOrigin => "ask_origin",
        }
    }
}

/// Why no agent answers a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The number is on Vapi and has no handover: its calls should not arrive here.
    VapiNumber {
        /// The agent of the number.
        agent_id: AgentId,
    },
    /// Number and agent are on different systems: a fault that the API and the console show.
    CrossSystem {
        /// The agent of the number.
        agent_id: AgentId,
        /// Whom to dial instead.
        fallback_number: Option<E164>,
    },
    /// Nobody knows this number.
    NotInService,
}

impl Rejection {
    /// The reason as it stands in the event `call.rejected`.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::VapiNumber { .. } => "vapi_number",
            Self::CrossSystem { .. } => "cross_system",
            Self::NotInService => "not_in_service",
        }
    }
}

/// Decides an incoming Twilio call.
pub fn decide_voice(route: Lookup<'_, NumberRoute>) -> VoiceDecision {
    use SystemType::{OpenaiRealtime, Vapi};

    let route = match route {
        Lookup::Replica(Some(route)) | Lookup::Truth(Some(route)) => route,
        Lookup::Replica(None) => return VoiceDecision::AskOrigin,
        Lookup::Truth(None) => return VoiceDecision::Reject(Rejection::NotInService),
    };
    let agent_id = route.agent_id;
    match (route.agent_system_type, route.number_system_type) {
        (OpenaiRealtime, OpenaiRealtime) => VoiceDecision::Bridge { agent_id },
        (Vapi, Vapi) => match route.vapi_handover {
            VapiHandover::Bypass => VoiceDecision::BypassToVapi { agent_id },
            VapiHandover::Redirect => VoiceDecision::RedirectToVapi { agent_id },
            VapiHandover::None => VoiceDecision::Reject(Rejection::VapiNumber { agent_id }),
        },
        (Vapi, OpenaiRealtime) | (OpenaiRealtime, Vapi) => {
            VoiceDecision::Reject(Rejection::CrossSystem { agent_id, fallback_number: route.fallback_number.clone() })
        }
    }
}

/// What to do with a Vapi server message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VapiDecision {
    /// The message counts: the edge forwards it, the origin acts on it.
    Process,
    /// The agent has left Vapi and the call began after that: answer in the type's shape and do nothing.
    Skip,
    /// The replica does not say; the origin does.
    AskOrigin,
    /// The origin knows no such agent: acknowledge, so that Vapi never hangs, and change nothing.
    Unknown,
}

/// Decides a Vapi server message about a call that was created at `call_created_at`.
///
/// `pin` is the system that the call is known to run on; only the origin knows it, and it comes before the agent's
/// present state, because a call belongs to the system it began on.
pub fn decide_vapi(
    pin: Option<SystemType>,
    route: Lookup<'_, AssistantRoute>,
    call_created_at: Option<OffsetDateTime>,
) -> VapiDecision {
    match pin {
        Some(SystemType::Vapi) => return VapiDecision::Process,
        Some(SystemType::OpenaiRealtime) => return VapiDecision::Skip,
        None => {}
    }
    let (route, in_doubt) = match route {
        // Without its creation time a call may be in flight. Only the origin knows its pin; when that says
        // nothing either, acting on an event too many is better than losing one.
        Lookup::Replica(Some(route)) => (route, VapiDecision::AskOrigin),
        Lookup::Truth(Some(route)) => (route, VapiDecision::Process),
        Lookup::Replica(None) => return VapiDecision::AskOrigin,
        Lookup::Truth(None) => return VapiDecision::Unknown,
    };
    match (route.agent_system_type, route.switched_at, call_created_at) {
        (SystemType::Vapi, _, _) => VapiDecision::Process,
        (SystemType::OpenaiRealtime, None, _) => VapiDecision::Skip,
        (SystemType::OpenaiRealtime, Some(_), None) => in_doubt,
        (SystemType::OpenaiRealtime, Some(switched_at), Some(created_at)) => {
            if created_at < switched_at {
                VapiDecision::Process
            } else {
                VapiDecision::Skip
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(target_arch = "wasm32"))]
mod tests {
    use proptest::prelude::*;
    use time::Duration;

    use super::*;

    fn system() -> impl Strategy<Value = SystemType> {
        prop_oneof![Just(SystemType::Vapi), Just(SystemType::OpenaiRealtime)]
    }

    fn handover() -> impl Strategy<Value = VapiHandover> {
        prop_oneof![Just(VapiHandover::None), Just(VapiHandover::Bypass), Just(VapiHandover::Redirect)]
    }

    fn moment() -> impl Strategy<Value = OffsetDateTime> {
        (0i64..100_000).prop_map(|s| OffsetDateTime::UNIX_EPOCH + Duration::seconds(s))
    }

    prop_compose! {
        fn number_route()(number_system_type in system(), agent_system_type in system(), vapi_handover in handover(),
                          fallback in proptest::option::of(Just("+15550199")), id in any::<u128>()) -> NumberRoute {
            NumberRoute {
                revision: 1,
                number: "+15550100".parse().unwrap(),
                number_system_type,
                agent_id: AgentId(uuid::Uuid::from_u128(id)),
                agent_system_type,
                vapi_handover,
                fallback_number: fallback.map(|number| number.parse().unwrap()),
            }
        }
    }

    prop_compose! {
        fn assistant_route()(agent_system_type in system(), switched_at in proptest::option::of(moment())) -> AssistantRoute {
            AssistantRoute { revision: 1, agent_id: AgentId(uuid::Uuid::nil()), agent_system_type, switched_at }
        }
    }

    #[test]
    fn a_number_nobody_knows() {
        assert_eq!(decide_voice(Lookup::Replica(None)), VoiceDecision::AskOrigin);
        assert_eq!(decide_voice(Lookup::Truth(None)), VoiceDecision::Reject(Rejection::NotInService));
    }

    proptest! {
        #[test]
        fn edge_and_origin_never_disagree_on_the_same_route(route in number_route()) {
            prop_assert_eq!(decide_voice(Lookup::Replica(Some(&route))), decide_voice(Lookup::Truth(Some(&route))));
        }

        #[test]
        fn every_row_of_the_voice_table(route in number_route()) {
            let agent_id = route.agent_id;
            let expected = if route.agent_system_type != route.number_system_type {
                VoiceDecision::Reject(Rejection::CrossSystem { agent_id, fallback_number: route.fallback_number.clone() })
            } else if route.agent_system_type == SystemType::OpenaiRealtime {
                VoiceDecision::Bridge { agent_id }
            } else {
                match route.vapi_handover {
                    VapiHandover::Bypass => VoiceDecision::BypassToVapi { agent_id },
                    VapiHandover::Redirect => VoiceDecision::RedirectToVapi { agent_id },
                    VapiHandover::None => VoiceDecision::Reject(Rejection::VapiNumber { agent_id }),
                }
            };
            prop_assert_eq!(decide_voice(Lookup::Truth(Some(&route))), expected);
        }

        #[test]
        fn a_pinned_call_stays_where_it_began(pin in system(), route in assistant_route(), created in proptest::option::of(moment())) {
            let decision = decide_vapi(Some(pin), Lookup::Truth(Some(&route)), created);
            prop_assert_eq!(decision == VapiDecision::Process, pin == SystemType::Vapi);
        }

        #[test]
        fn in_flight_is_processed_and_later_is_skipped(switched in moment(), created in moment()) {
            let route = AssistantRoute {
                revision: 1,
                agent_id: AgentId(uuid::Uuid::nil()),
                agent_system_type: SystemType::OpenaiRealtime,
                switched_at: Some(switched),
            };
            let expected = if created < switched { VapiDecision::Process } else { VapiDecision::Skip };
            prop_assert_eq!(decide_vapi(None, Lookup::Replica(Some(&route)), Some(created)), expected);
            prop_assert_eq!(decide_vapi(None, Lookup::Truth(Some(&route)), Some(created)), expected);
        }

        #[test]
        fn an_agent_on_vapi_loses_nothing(route in assistant_route(), created in proptest::option::of(moment())) {
            let route = AssistantRoute { agent_system_type: SystemType::Vapi, ..route };
            prop_assert_eq!(decide_vapi(None, Lookup::Replica(Some(&route)), created), VapiDecision::Process);
        }

        #[test]
        fn the_origin_always_decides(route in proptest::option::of(assistant_route()), created in proptest::option::of(moment())) {
            prop_assert_ne!(decide_vapi(None, Lookup::Truth(route.as_ref()), created), VapiDecision::AskOrigin);
        }
    }
}
