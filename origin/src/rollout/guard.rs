//! Whether the calls of switched agents are worse than the same agents' calls were before. Pure.
//!
//! Three of the four measures are shares of calls, one is a time. For each there are three answers, and the middle one
//! is honest about small numbers:
//!
//! - **fail**: it is worse. For shares Fisher's exact test, which holds for any number of calls, says so with an error of
//!   at most 1 % and at least three bad calls; and it is not sure that the difference is within what is tolerated. For
//!   the time the Mann-Whitney test says with an error of 1 % that it is worse by more than is tolerated.
//! - **pass**: with an error of at most 5 % the measure is not worse by more than is tolerated (a test of
//!   non-inferiority): for shares by the upper end of Newcombe's hybrid score interval, made of Wilson's intervals, for
//!   the time by the Mann-Whitney test on the shifted past.
//! - **not enough calls**: neither.
//!
//! The guard looks again and again, which makes errors of the first kind somewhat likelier than 1 %: hence the strict
//! bound. That calls of one agent resemble each other is not accounted for; the past is of the same agents, and of each
//! only its newest calls, so that a busy one does not stand for all.
//!
//! Sources: Newcombe 1998 (Statistics in Medicine 17:873), method 10; Mann and Whitney 1947, with Hodges and Lehmann's shift.

use serde::{Deserialize, Serialize};
use statrs::stats_tests::Alternative;
use statrs::stats_tests::fisher::fishers_exact;
use statrs::stats_tests::mannwhitneyu::{MannWhitneyUMethod, mannwhitneyu};
use utoipa::ToSchema;

/// The error that a verdict of `fail` may have.
const FAIL_ERROR: f64 = 0.01;
/// The error that a verdict of `pass` may have.
const PASS_ERROR: f64 = 0.05;
/// The normal distribution's quantile of that, one-sided.
const PASS_Z: f64 = 1.644_853_626_951_472_7;
/// Fewer bad calls than this are chance, whatever the test says.
const FEWEST_BAD: u64 = 3;
/// The test of times needs so many calls on either side for its approximation to hold.
const FEWEST_TIMES: usize = 8;

/// What is compared. The spelling is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutMeasure)]
pub enum Measure {
    /// Share of calls that the system did not take, or lost.
    SetupFailures,
    /// Share of answered calls in which the caller hung up within seconds.
    ShortHangUps,
    /// Share of the calls with tools in which a tool failed.
    ToolErrors,
    /// From the end of the caller's speech to the first audio of the answer, in milliseconds, a call's mean.
    FirstAudioMs,
}

impl Measure {
    /// The spelling in the API and at the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SetupFailures => "setupFailures",
            Self::ShortHangUps => "shortHangUps",
            Self::ToolErrors => "toolErrors",
            Self::FirstAudioMs => "firstAudioMs",
        }
    }
}

/// By how much a measure may be worse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = RolloutTolerances)]
pub struct Tolerances {
    /// In percentage points.
    #[schema(minimum = 0, maximum = 100)]
    pub setup_failures: f64,
    /// In percentage points.
    #[schema(minimum = 0, maximum = 100)]
    pub short_hang_ups: f64,
    /// In percentage points.
    #[schema(minimum = 0, maximum = 100)]
    pub tool_errors: f64,
    /// In milliseconds.
    #[schema(minimum = 0, maximum = 60_000)]
    pub first_audio_ms: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self { setup_failures: 3.0, short_hang_ups: 5.0, tool_errors: 5.0, first_audio_ms: 300.0 }
    }
}

/// Some of a number of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Those that it is about.
    pub bad: u64,
    /// All that count.
    pub of: u64,
}

/// The calls of one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Of all calls that are over.
    pub setup_failures: Share,
    /// Of those that were answered.
    pub short_hang_ups: Share,
    /// Of those in which a tool ran.
    pub tool_errors: Share,
    /// Of each call that tells it.
    pub first_audio_ms: Vec<f64>,
}

/// What the guard says. The spelling is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RolloutVerdict)]
pub enum Verdict {
    /// Not worse.
    Pass,
    /// Worse.
    Fail,
    /// Nobody can tell yet.
    NotEnoughCalls,
}

impl Verdict {
    /// The spelling in the API and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotEnoughCalls => "not_enough_calls",
        }
    }
}

/// One side of a comparison, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutMeasured)]
pub struct Side {
    /// Calls that count.
    pub calls: u64,
    /// A share in per cent, or a median in milliseconds; `None` without calls.
    #[schema(required)]
    pub value: Option<f64>,
}

/// What is found about one measure.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutFinding)]
pub struct Finding {
    /// What was compared.
    pub measure: Measure,
    /// `None`: it does not apply, since neither side has calls that tell it.
    #[schema(required)]
    pub verdict: Option<Verdict>,
    /// The switched agents' calls.
    pub now: Side,
    /// Their past on the other system.
    pub before: Side,
    /// By how much it may be worse.
    pub tolerated: f64,
}

/// Compares the two sides, measure by measure.
pub fn findings(now: &Sample, before: &Sample, tolerances: &Tolerances) -> Vec<Finding> {
    let share = |measure, now: Share, before: Share, tolerated: f64| Finding {
        measure,
        verdict: if now.of == 0 && before.of == 0 { None } else { Some(judge_shares(now, before, tolerated / 100.0)) },
        now: Side { calls: now.of, value: now.per_cent() },
        before: Side { calls: before.of, value: before.per_cent() },
        tolerated,
    };
    vec![
        // Without any call there is nothing to apply to yet.
        Finding {
            verdict: Some(judge_shares(now.setup_failures, before.setup_failures, tolerances.setup_failures / 100.0)),
            ..share(Measure::SetupFailures, now.setup_failures, before.setup_failures, tolerances.setup_failures)
        },
        share(Measure::ShortHangUps, now.short_hang_ups, before.short_hang_ups, tolerances.short_hang_ups),
        share(Measure::ToolErrors, now.tool_errors, before.tool_errors, tolerances.tool_errors),
        times(&now.first_audio_ms, &before.first_audio_ms, tolerances.first_audio_ms),
    ]
}

/// One verdict on all: what fails fails the whole, and what cannot be told yet holds it up.
pub fn overall(findings: &[Finding]) -> Verdict {
    let any = |verdict| findings.iter().any(|finding| finding.verdict == Some(verdict));
    if any(Verdict::Fail) {
        Verdict::Fail
    } else if any(Verdict::NotEnoughCalls) || findings.is_empty() {
        Verdict::NotEnoughCalls
    } else {
        Verdict::Pass
    }
}

impl Share {
    #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
    fn rate(self) -> f64 {
        self.bad as f64 / self.of as f64
    }

    fn per_cent(self) -> Option<f64> {
        (self.of > 0).then(|| self.rate() * 100.0)
    }

    fn good(self) -> u64 {
        self.of.saturating_sub(self.bad)
    }
}

fn judge_shares(now: Share, before: Share, tolerated: f64) -> Verdict {
    if now.of == 0 || before.of == 0 {
        return Verdict::NotEnoughCalls;
    }
    if difference_at_most(now, before, PASS_Z) < tolerated {
        return Verdict::Pass;
    }
    let table = [now.bad, now.good(), before.bad, before.good()];
    let worse = fishers_exact(&table, Alternative::Greater).is_ok_and(|p| p < FAIL_ERROR);
    if worse && now.bad >= FEWEST_BAD { Verdict::Fail } else { Verdict::NotEnoughCalls }
}

/// The upper end of Newcombe's interval for how much greater the share is now.
fn difference_at_most(now: Share, before: Share, z: f64) -> f64 {
    let (_, now_high) = wilson(now, z);
    let (before_low, _) = wilson(before, z);
    let spread = (now_high - now.rate()).hypot(before.rate() - before_low);
    now.rate() - before.rate() + spread
}

/// Wilson's score interval of a share.
#[expect(clippy::cast_precision_loss, reason = "counts of calls")]
fn wilson(share: Share, z: f64) -> (f64, f64) {
    let (n, p, z2) = (share.of as f64, share.rate(), z * z);
    let centre = p + z2 / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    ((centre - spread) / scale, (centre + spread) / scale)
}

fn times(now: &[f64], before: &[f64], tolerated: f64) -> Finding {
    let side = |times: &[f64]| Side { calls: times.len() as u64, value: median(times) };
    Finding {
        measure: Measure::FirstAudioMs,
        // A system that never tells times cannot be compared by them.
        verdict: (!before.is_empty()).then(|| judge_times(now, before, tolerated)),
        now: side(now),
        before: side(before),
        tolerated,
    }
}

fn judge_times(now: &[f64], before: &[f64], tolerated: f64) -> Verdict {
    if now.len() < FEWEST_TIMES || before.len() < FEWEST_TIMES {
        return Verdict::NotEnoughCalls;
    }
    let tolerable: Vec<f64> = before.iter().map(|ms| ms + tolerated).collect();
    let p = |alternative| {
        let method = MannWhitneyUMethod::AsymptoticInclContinuityCorrection;
        mannwhitneyu(now, &tolerable, method, alternative).map_or(1.0, |(_, p)| p)
    };
    if p(Alternative::Greater) < FAIL_ERROR {
        Verdict::Fail
    } else if p(Alternative::Less) < PASS_ERROR {
        Verdict::Pass
    } else {
        Verdict::NotEnoughCalls
    }
}

fn median(times: &[f64]) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(bad: u64, of: u64) -> Share {
        Share { bad, of }
    }

    fn judged(now: (u64, u64), before: (u64, u64)) -> Verdict {
        judge_shares(share(now.0, now.1), share(before.0, before.1), 0.03)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 0.000_5
    }

    #[test]
    fn intervals_are_the_published_ones() {
        // Newcombe's first example, 56/70 against 48/80 at 95 % both sides: 0.0524 to 0.3339.
        let z = 1.959_964;
        let (wide, back) = (share(56, 70), share(48, 80));
        assert!(close(difference_at_most(wide, back, z), 0.333_9), "{}", difference_at_most(wide, back, z));
        assert!(close(-difference_at_most(back, wide, z), 0.052_4), "{}", difference_at_most(back, wide, z));
        // His fourth, 9/10 against 3/10: 0.1705 to 0.8090.
        assert!(close(difference_at_most(share(9, 10), share(3, 10), z), 0.809_0));
        // 0 of n: z² / (n + z²).
        let (low, high) = wilson(share(0, 100), PASS_Z);
        assert!(low.abs() < 1e-9 && close(high, 0.026_34), "{low} {high}");
    }

    #[test]
    fn a_few_calls_tell_nothing_unless_they_are_terrible() {
        assert_eq!(judged((0, 10), (0, 200)), Verdict::NotEnoughCalls);
        assert_eq!(judged((1, 1), (0, 500)), Verdict::NotEnoughCalls, "one bad call is chance");
        assert_eq!(judged((2, 2), (0, 500)), Verdict::NotEnoughCalls);
        assert_eq!(judged((3, 4), (1, 200)), Verdict::Fail);
        assert_eq!(judged((5, 5), (5, 5)), Verdict::NotEnoughCalls, "as bad as before");
    }

    #[test]
    fn many_calls_that_are_alike_pass() {
        assert_eq!(judged((0, 120), (0, 500)), Verdict::Pass);
        assert_eq!(judged((10, 1_000), (8, 1_000)), Verdict::Pass);
        // Surely worse, and as surely by less than is tolerated.
        assert_eq!(judged((1_500, 100_000), (1_000, 100_000)), Verdict::Pass);
    }

    /// The README says how many.
    #[test]
    fn without_any_failure_some_90_calls_on_each_side_pass() {
        let verdict = |calls: u32| {
            let none = share(0, calls.into());
            let times = around(800.0, calls);
            let clean = Sample { setup_failures: none, short_hang_ups: none, tool_errors: none, first_audio_ms: times };
            overall(&findings(&clean, &clean, &Tolerances::default()))
        };
        let fewest = (1..1_000).find(|calls| verdict(*calls) == Verdict::Pass).expect("so many calls pass");
        assert!((85..=95).contains(&fewest), "{fewest} calls are not some 90");
    }

    #[test]
    fn many_calls_that_are_worse_fail() {
        assert_eq!(judged((60, 1_000), (10, 1_000)), Verdict::Fail);
        assert_eq!(judged((12, 100), (1, 100)), Verdict::Fail);
    }

    #[test]
    fn without_a_past_nothing_is_told() {
        assert_eq!(judged((0, 1_000), (0, 0)), Verdict::NotEnoughCalls);
        assert_eq!(judged((0, 0), (0, 1_000)), Verdict::NotEnoughCalls);
    }

    /// So many calls around a time.
    fn around(ms: f64, calls: u32) -> Vec<f64> {
        (0..calls).map(|at| ms + f64::from(at % 20) * 10.0).collect()
    }

    #[test]
    fn times_may_be_slower_by_what_is_tolerated() {
        assert_eq!(judge_times(&around(900.0, 30), &around(800.0, 30), 300.0), Verdict::Pass);
        assert_eq!(judge_times(&around(1_500.0, 30), &around(800.0, 30), 300.0), Verdict::Fail);
        assert_eq!(judge_times(&around(1_100.0, 30), &around(800.0, 30), 300.0), Verdict::NotEnoughCalls);
        assert_eq!(judge_times(&around(1_500.0, 5), &around(800.0, 30), 300.0), Verdict::NotEnoughCalls);
    }

    #[test]
    fn the_worst_measure_decides() {
        let good = Sample {
            setup_failures: share(0, 300),
            short_hang_ups: share(3, 300),
            tool_errors: share(1, 200),
            first_audio_ms: around(800.0, 60),
        };
        let tolerances = Tolerances::default();
        let verdict = |now: &Sample| overall(&findings(now, &good, &tolerances));
        assert_eq!(verdict(&good), Verdict::Pass);
        assert_eq!(verdict(&Sample { setup_failures: share(40, 300), ..good.clone() }), Verdict::Fail);
        assert_eq!(verdict(&Sample { short_hang_ups: share(60, 300), ..good.clone() }), Verdict::Fail);
        assert_eq!(verdict(&Sample { tool_errors: share(60, 200), ..good.clone() }), Verdict::Fail);
        assert_eq!(verdict(&Sample { first_audio_ms: around(2_000.0, 60), ..good.clone() }), Verdict::Fail);
        assert_eq!(verdict(&Sample { tool_errors: share(0, 0), ..good.clone() }), Verdict::NotEnoughCalls);
        assert_eq!(verdict(&Sample::default()), Verdict::NotEnoughCalls);
    }

    #[test]
    fn what_neither_side_tells_does_not_apply() {
        let plain = Sample { setup_failures: share(0, 300), short_hang_ups: share(0, 300), ..Sample::default() };
        let findings = findings(&plain, &plain, &Tolerances::default());
        assert_eq!(findings.iter().filter(|finding| finding.verdict.is_none()).count(), 2);
        assert_eq!(overall(&findings), Verdict::Pass);
        let nothing = Sample::default();
        assert_eq!(overall(&super::findings(&nothing, &nothing, &Tolerances::default())), Verdict::NotEnoughCalls);
    }
}
