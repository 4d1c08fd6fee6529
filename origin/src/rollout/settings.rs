//! What a rollout's guard is told when it is planned.

use serde::{Deserialize, Serialize};

use super::guard::Tolerances;

/// What follows when the calls of switched agents are worse. The spelling is part of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnFail {
    /// No further agent is switched.
    #[default]
    Pause,
    /// Everything is switched back.
    Rollback,
    /// Nothing, and stages begin without a verdict.
    Off,
}

/// How calls are compared, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GuardSettings {
    /// What follows when they are worse.
    pub on_fail: OnFail,
    /// How far the past goes back, in days before an agent's switch.
    pub baseline_days: u16,
    /// A caller who hangs up sooner than this after the call was answered has not been helped, in seconds.
    pub short_call_seconds: u16,
    /// By how much each measure may be worse.
    pub tolerate: Tolerances,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { on_fail: OnFail::default(), baseline_days: 14, short_call_seconds: 10, tolerate: Tolerances::default() }
    }
}
