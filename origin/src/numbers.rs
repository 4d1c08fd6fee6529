//! Phone numbers: where Twilio sends their calls, buying them, taking them over, giving them back.

pub mod drift;
pub mod holding;
pub mod pointing;
pub mod purchase;

use std::time::Duration;

use crate::config::Config;
use crate::providers::twilio::numbers::NumbersError;
use crate::providers::vapi::phone_numbers::PhoneNumbersError;
use crate::store::StoreError;
use crate::store::agents::Agent;
use crate::store::pointings::Place;
use shared::SystemType;

/// Why something could not be done with a number.
#[derive(Debug, thiserror::Error)]
pub enum NumberError {
    /// The project has no such agent.
    #[error("there is no such agent")]
    NoAgent,
    /// The project has no such number.
    #[error("there is no such number")]
    NoNumber,
    /// There is a record of the number, here or in another project.
    #[error("the number is in use here already")]
    Known,
    /// Somebody is buying it.
    #[error("the number is being bought already")]
    BeingBought,
    /// It is in the account without having been bought by us.
    #[error("the Twilio account has the number already: adopt it instead")]
    Owned,
    /// It is in none of the accounts.
    #[error("the number is in none of the Twilio accounts")]
    NotOwned,
    /// Only Twilio's numbers can come to us.
    #[error("the number is at Vapi, but not as one of Twilio's: its calls cannot be sent elsewhere")]
    NotTwilios,
    /// The agent is on Vapi without an assistant there.
    #[error("the agent is on Vapi and has no assistant there")]
    NoAssistant,
    /// A number is released only when nobody answers it.
    #[error("an agent answers the number: unassign it first")]
    Assigned,
    /// From then on nobody gets it.
    #[error("the number is being given back")]
    Releasing,
    /// It is as it came.
    #[error("Twilio is not told about the number")]
    NotPointed,
    /// A number is released only when nobody speaks on it.
    #[error("calls to the number are in progress")]
    CallsInFlight,
    /// The purchase was asked for too long ago.
    #[error("the number could not be bought in time, and is not ours")]
    Expired,
    /// An optional service that this needs.
    #[error("the origin has no access to {0}")]
    NotConfigured(&'static str),
    /// Twilio.
    #[error(transparent)]
    Twilio(#[from] NumbersError),
    /// Vapi.
    #[error(transparent)]
    Vapi(#[from] PhoneNumbersError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for NumberError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl NumberError {
    /// A stable word, part of the API.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoAgent | Self::NoNumber | Self::NotPointed => "not_found",
            Self::Known => "number_known",
            Self::BeingBought => "number_being_bought",
            Self::Owned => "number_owned",
            Self::NotOwned => "not_in_twilio_account",
            Self::NotTwilios => "not_twilios_at_vapi",
            Self::NoAssistant => "no_vapi_assistant",
            Self::Assigned => "number_assigned",
            Self::Releasing => "number_releasing",
            Self::CallsInFlight => "calls_in_flight",
            Self::Expired => "purchase_expired",
            Self::NotConfigured(_) => "not_configured",
            Self::Twilio(NumbersError::Unreachable(_)) => "twilio_unreachable",
            Self::Twilio(NumbersError::RateLimited { .. }) => "twilio_rate_limited",
            Self::Twilio(NumbersError::Refused { .. }) => "twilio_refused",
            Self::Twilio(NumbersError::Unreadable(_)) => "twilio_answer",
            Self::Vapi(PhoneNumbersError::Unreachable(_)) => "vapi_unreachable",
            Self::Vapi(PhoneNumbersError::RateLimited { .. }) => "vapi_rate_limited",
            Self::Vapi(PhoneNumbersError::Refused { .. }) => "vapi_refused",
            Self::Vapi(PhoneNumbersError::Unreadable) => "vapi_answer",
            Self::Store(_) => "database",
        }
    }

    /// Twilio's own code for it.
    pub const fn twilio_code(&self) -> Option<u32> {
        match self {
            Self::Twilio(NumbersError::Refused { code, .. }) => *code,
            _ => None,
        }
    }

    /// Whether the same may be tried again later, and after how long if a service has said so.
    pub fn passes(&self) -> Option<Option<Duration>> {
        // Credentials are mended without touching the number.
        let passing = |status: u16| status >= 500 || matches!(status, 401 | 403 | 408);
        match self {
            Self::Twilio(NumbersError::RateLimited { retry_after })
            | Self::Vapi(PhoneNumbersError::RateLimited { retry_after }) => Some(*retry_after),
            Self::Twilio(NumbersError::Refused { status, retry_after, .. })
            | Self::Vapi(PhoneNumbersError::Refused { status, retry_after, .. }) => {
                passing(*status).then_some(*retry_after)
            }
            Self::Twilio(_) | Self::Vapi(_) | Self::NotConfigured(_) => Some(None),
            Self::Store(error) => error.is_temporary().then_some(None),
            _ => None,
        }
    }
}

/// Where a number goes that comes to an agent. One that Vapi is to know can only come where Vapi can be told.
fn place_for_new(agent: &Agent, config: &Config) -> Result<Place, NumberError> {
    match place_for(agent)? {
        Place::Vapi if config.vapi.is_none() => Err(NumberError::NotConfigured("Vapi")),
        place => Ok(place),
    }
}

/// Where an agent's numbers go, unless they are handed over at the edge.
fn place_for(agent: &Agent) -> Result<Place, NumberError> {
    match (agent.system_type, &agent.vapi_assistant_id) {
        (SystemType::OpenaiRealtime, _) => Ok(Place::Edge),
        (SystemType::Vapi, Some(_)) => Ok(Place::Vapi),
        (SystemType::Vapi, None) => Err(NumberError::NoAssistant),
    }
}
