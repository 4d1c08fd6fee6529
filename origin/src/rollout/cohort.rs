//! Which agents belong to which stage of a rollout. Pure.
//!
//! An agent's place depends on its id alone: a rollout of 50 % contains the one of 25 %, today's and next month's,
//! whatever agents come and go. The price is that the shares are exact only for many agents: 25 % of ten may be one of
//! them or four.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::AgentId;

/// Buckets in a whole: hundredths of a per cent.
const BUCKETS: u16 = 10_000;

/// A stage of a rollout. The spelling is part of the API: `pilot`, or a percentage such as `25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Stage {
    /// The agents named as pilots.
    Pilot,
    /// This share of the agents, 1 to 100.
    Percent(u8),
}

/// A text that names no stage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stage is a percentage from 1 to 100, not {0:?}")]
pub struct NoStage(String);

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pilot => f.write_str("pilot"),
            Self::Percent(share) => write!(f, "{share}%"),
        }
    }
}

impl FromStr for Stage {
    type Err = NoStage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "pilot" {
            return Ok(Self::Pilot);
        }
        match text.strip_suffix('%').unwrap_or(text).parse() {
            Ok(share @ 1..=100) => Ok(Self::Percent(share)),
            _ => Err(NoStage(text.to_owned())),
        }
    }
}

impl From<Stage> for String {
    fn from(stage: Stage) -> Self {
        stage.to_string()
    }
}

impl TryFrom<String> for Stage {
    type Error = NoStage;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// An agent's place in every rollout, from 0 to 9,999. Never to be computed otherwise: stages would not contain the ones
/// before any more.
pub fn bucket(agent: AgentId) -> u16 {
    let digest = Sha256::new().chain_update(b"tandem.rollout.v1.").chain_update(agent.0.as_bytes()).finalize();
    let head: [u8; 8] = std::array::from_fn(|at| digest[at]);
    // The product's upper half is a fair share of the buckets; it is less than their number.
    let place = (u128::from(u64::from_be_bytes(head)) * u128::from(BUCKETS)) >> 64;
    u16::try_from(place).unwrap_or(BUCKETS - 1)
}

/// Whether an agent that is no pilot is in a stage.
fn contains(stage: Stage, bucket: u16) -> bool {
    match stage {
        Stage::Pilot => false,
        Stage::Percent(share) => bucket < u16::from(share) * (BUCKETS / 100),
    }
}

/// An agent's place in a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub agent: AgentId,
    /// The stage that it comes with, counted from 1.
    pub stage: u16,
}

/// The agents of a rollout in the order of switching, and the stages that have any. An agent that comes with no stage
/// is left out, and so is a stage that no further agent comes with.
pub fn assign(agents: &[AgentId], pilots: &[AgentId], stages: &[Stage]) -> (Vec<Member>, Vec<Stage>) {
    let mut stages = stages.to_vec();
    if !pilots.is_empty() {
        stages.push(Stage::Pilot);
    }
    stages.sort_unstable();
    stages.dedup();

    let mut placed: Vec<(Stage, u16, AgentId)> = agents
        .iter()
        .filter_map(|&agent| {
            let bucket = bucket(agent);
            let first = stages.iter().find(|stage| match stage {
                Stage::Pilot => pilots.contains(&agent),
                Stage::Percent(_) => contains(**stage, bucket),
            });
            first.map(|&stage| (stage, bucket, agent))
        })
        .collect();
    placed.sort_unstable();
    placed.dedup();
    stages.retain(|stage| placed.iter().any(|(of, ..)| of == stage));
    let members = placed
        .into_iter()
        .filter_map(|(stage, _, agent)| {
            let at = stages.iter().position(|one| *one == stage)?;
            Some(Member { agent, stage: u16::try_from(at + 1).ok()? })
        })
        .collect();
    (members, stages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn agent(id: u128) -> AgentId {
        AgentId(Uuid::from_u128(id))
    }

    /// Who has been switched once these stages are done.
    fn after(agents: &[AgentId], stages: &[u8]) -> Vec<AgentId> {
        let stages: Vec<Stage> = stages.iter().map(|share| Stage::Percent(*share)).collect();
        assign(agents, &[], &stages).0.into_iter().map(|member| member.agent).collect()
    }

    #[test]
    fn places_never_change() {
        assert_eq!([0, 1, 2, 3].map(|id| bucket(agent(id))), [7036, 3388, 5826, 1915]);
    }

    #[test]
    fn the_shares_of_many_agents_are_near() {
        let agents: Vec<AgentId> = (0..10_000).map(agent).collect();
        for share in [1, 25, 50, 99] {
            let found = after(&agents, &[share]).len();
            assert!(found.abs_diff(usize::from(share) * 100) < 200, "{found} of 10,000 are not {share} %");
        }
        assert_eq!(after(&agents, &[100]).len(), agents.len());
    }

    #[test]
    fn pilots_come_first_and_once() {
        let agents: Vec<AgentId> = (0..100).map(agent).collect();
        let pilot = *after(&agents, &[100]).last().expect("a hundred agents");
        let (members, stages) = assign(&agents, &[pilot], &[Stage::Percent(100)]);
        assert_eq!(stages, [Stage::Pilot, Stage::Percent(100)]);
        assert_eq!(members[0], Member { agent: pilot, stage: 1 });
        assert_eq!(members.iter().filter(|member| member.agent == pilot).count(), 1);
        assert!(members[1..].iter().all(|member| member.stage == 2));
        assert_eq!(members.len(), 100);
    }

    #[test]
    fn a_stage_without_a_further_agent_is_left_out() {
        let one = [agent(0)];
        let share = u8::try_from(bucket(one[0]) / 100 + 1).expect("a percentage");
        let stages: Vec<Stage> = [1, share, 100].map(Stage::Percent).to_vec();
        let (members, kept) = assign(&one, &[], &stages);
        assert_eq!((kept, members.len()), (vec![Stage::Percent(share)], 1));
    }

    #[test]
    fn stages_are_read_as_they_are_written() {
        for (text, stage) in [("pilot", Stage::Pilot), ("25%", Stage::Percent(25)), ("100%", Stage::Percent(100))] {
            assert_eq!(text.parse(), Ok(stage));
            assert_eq!(stage.to_string(), text);
        }
        assert_eq!("25".parse(), Ok(Stage::Percent(25)));
        for wrong in ["0%", "101", "-1", "half", "", "%"] {
            assert!(wrong.parse::<Stage>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_larger_share_contains_the_smaller_whoever_came_since(
            ids in prop::collection::vec(any::<u128>(), 0..60),
            known in 0..60_usize,
            small in 1..=100_u8,
            more in 0..=99_u8,
        ) {
            let all: Vec<AgentId> = ids.iter().copied().map(agent).collect();
            let earlier = &all[..known.min(all.len())];
            let later = after(&all, &[small.saturating_add(more).min(100)]);
            for member in after(earlier, &[small]) {
                prop_assert!(later.contains(&member));
            }
        }

        #[test]
        fn stages_one_after_another_come_to_the_last_of_them(ids in prop::collection::vec(any::<u128>(), 0..60)) {
            let agents: Vec<AgentId> = ids.into_iter().map(agent).collect();
            let (mut staged, mut whole) = (after(&agents, &[25, 50, 75]), after(&agents, &[75]));
            staged.sort();
            whole.sort();
            prop_assert_eq!(staged, whole);
        }
    }
}
