//! What a rollout's guard is told when it is planned.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::guard::Tolerances;

/// What follows when the calls of switched agents are worse. The spelling is part of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutOnFail)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = RolloutGuard)]
pub struct GuardSettings {
    /// What follows when they are worse.
    pub on_fail: OnFail,
    /// How far the past goes back, in days before an agent's switch.
    #[schema(minimum = 1, maximum = 365)]
    pub baseline_days: u16,
    /// A caller who hangs up sooner than this after the call was answered has not been helped, in seconds.
    #[schema(minimum = 1, maximum = 600)]
    pub short_call_seconds: u16,
    /// By how much each measure may be worse.
    pub tolerate: Tolerances,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { on_fail: OnFail::default(), baseline_days: 14, short_call_seconds: 10, tolerate: Tolerances::default() }
    }
}

impl GuardSettings {
    /// What is wrong with them, each with its field's name first.
    pub fn faults(&self) -> Vec<String> {
        let Tolerances { setup_failures, short_hang_ups, tool_errors, first_audio_ms } = self.tolerate;
        let mut faults = Vec::new();
        let mut within = |name: &str, value: f64, least: f64, most: f64| {
            if !(least..=most).contains(&value) {
                faults.push(format!("guard.{name} must be {least} to {most}"));
            }
        };
        within("baselineDays", self.baseline_days.into(), 1.0, 365.0);
        within("shortCallSeconds", self.short_call_seconds.into(), 1.0, 600.0);
        within("tolerate.setupFailures", setup_failures, 0.0, 100.0);
        within("tolerate.shortHangUps", short_hang_ups, 0.0, 100.0);
        within("tolerate.toolErrors", tool_errors, 0.0, 100.0);
        within("tolerate.firstAudioMs", first_audio_ms, 0.0, 60_000.0);
        faults
    }
}
