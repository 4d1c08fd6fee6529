//! The one fact that everything else turns on: which voice system runs an agent's new calls.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A voice system. Agents and numbers start on [`SystemType::Vapi`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SystemType {
    /// Hosted by Vapi.
    #[default]
    Vapi,
    /// Bridged by us to OpenAI Realtime.
    OpenaiRealtime,
}

impl SystemType {
    /// The wire and database spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vapi => "vapi",
            Self::OpenaiRealtime => "openai-realtime",
        }
    }
}

impl fmt::Display for SystemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no system type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a system type: expected `vapi` or `openai-realtime`")]
pub struct UnknownSystemType;

impl FromStr for SystemType {
    type Err = UnknownSystemType;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "vapi" => Ok(Self::Vapi),
            "openai-realtime" => Ok(Self::OpenaiRealtime),
            _ => Err(UnknownSystemType),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_json_and_text() {
        for system in [SystemType::Vapi, SystemType::OpenaiRealtime] {
            assert_eq!(serde_json::to_string(&system).unwrap(), format!("\"{system}\""));
            assert_eq!(system.as_str().parse(), Ok(system));
        }
        assert_eq!("Vapi".parse::<SystemType>(), Err(UnknownSystemType));
        assert_eq!(SystemType::default(), SystemType::Vapi);
    }
}
