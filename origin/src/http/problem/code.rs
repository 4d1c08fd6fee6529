//! Every code of a problem: what programs tell problems apart by. A code never changes its meaning.
//!
//! A new one is a line here. The API's description and its docs list them from here.

use axum::http::StatusCode;

macro_rules! codes {
    ($($variant:ident $code:literal $status:ident $meaning:literal)*) => {
        /// What kind of problem it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The spelling in an answer.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }

            /// The status that it comes with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),* }
            }

            /// What it means, in a sentence or two.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" BAD_REQUEST
        "The request is not of the described form."
    UnknownParameter "unknown_parameter" BAD_REQUEST
        "The path does not take this query parameter."
    Unauthorized "unauthorized" UNAUTHORIZED
        "There is no valid API key."
    Forbidden "forbidden" FORBIDDEN
        "The API key may read but not change anything."
    InvalidSignature "invalid_signature" FORBIDDEN
        "A webhook is signed neither by its provider nor by the edge."
    NotFound "not_found" NOT_FOUND
        "There is no such thing in the key's project, or nothing at the path."
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED
        "The path does not take the method; `Allow` says which it takes."
    AgentInUse "agent_in_use" CONFLICT
        "The agent answers numbers, one is being bought for it, or it has had calls, so it cannot be deleted. `numbers` and \
         `calls` tell how many."
    AgentNotConfigured "agent_not_configured" CONFLICT
        "The agent cannot run on that system yet; `missing` says what it lacks."
    ConfirmationNeeded "confirmation_needed" CONFLICT
        "The request changes many agents, `agents` tells how many: say `confirm` if that is meant."
    GuardFailed "guard_failed" CONFLICT
        "The calls of the rollout's switched agents are worse than before, so no stage begins. Nobody can overrule that."
    GuardUndecided "guard_undecided" CONFLICT
        "There are too few calls for a verdict on the rollout; wait, or say `withoutVerdict`."
    NameTaken "name_taken" CONFLICT
        "Another one of the project has this name."
    NeededBySystem "needed_by_system" CONFLICT
        "The change would take away what the agent's present system needs; `missing` says what. Switch it first."
    RequestInProgress "request_in_progress" CONFLICT
        "A request with this `Idempotency-Key` is being worked on; try again."
    RolloutFailures "rollout_failures" CONFLICT
        "Agents or numbers failed in the rollout so far, `failures` tells how many. Start it again to try them again, or \
        say `despiteFailures`."
    RolloutState "rollout_state" CONFLICT
        "That cannot follow where the rollout stands; `state` tells where."
    ToolInUse "tool_in_use" CONFLICT
        "Agents have the tool, so it cannot be deleted. `agentIds` tells which."
    VapiAssistantTaken "vapi_assistant_taken" CONFLICT
        "Another agent has this assistant at Vapi."
    NumberConflict "number_conflict" CONFLICT
        "The number is not in a state for that; `reason` says why, such as `number_known`, `number_assigned`, `number_releasing` or `calls_in_flight`."
    PreconditionFailed "precondition_failed" PRECONDITION_FAILED
        "It is no longer what `If-Match` names: read it again."
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE
        "The body is too large."
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE
        "The body is of another type than the path takes."
    IdempotencyKeyReused "idempotency_key_reused" UNPROCESSABLE_ENTITY
        "The `Idempotency-Key` came before with another body."
    InvalidValue "invalid_value" UNPROCESSABLE_ENTITY
        "The form is right, but the values cannot be used; `faults` lists what is wrong with them."
    ProviderRefused "provider_refused" UNPROCESSABLE_ENTITY
        "Twilio or Vapi refused for good; `detail` has their words, `twilioCode` Twilio's code."
    RateLimited "rate_limited" TOO_MANY_REQUESTS
        "The API key has used up its requests; `Retry-After` says when there are more."
    Internal "internal" INTERNAL_SERVER_ERROR
        "Something went wrong here."
    Draining "draining" SERVICE_UNAVAILABLE
        "The origin is shutting down."
    ProviderUnavailable "provider_unavailable" SERVICE_UNAVAILABLE
        "Twilio or Vapi cannot do it at the moment; `reason` says why. Try again: `Retry-After` is theirs, if they said one."
    Timeout "timeout" SERVICE_UNAVAILABLE
        "The request took too long; whether it took effect is not known."
    Unavailable "unavailable" SERVICE_UNAVAILABLE
        "Not possible at the moment; try again."
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_are_spelled_alike() {
        let spellings: HashSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(spellings.len(), Code::ALL.len());
    }
}
