//! The course of a rollout. Pure: what may follow what.
//!
//! ```text
//! planned ─start─▶ running ─stage done─▶ waiting ─advance─▶ running … ─last stage done─▶ completed
//!                     │ ▲                   │ │                                              │
//!            pause or guard                 │ └ start: what failed is tried again            │
//!                     ▼ └────start────┐     │                                                │
//!                  paused ◀───────────┴─────┴──────────────── guard ─────────────────────────┘
//! any of them ─rollback, or guard─▶ rolling back ─done─▶ rolled back
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a rollout has come. The spelling is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RolloutState)]
pub enum State {
    /// Nothing is changed yet.
    Planned,
    /// Agents of the stages begun are being switched.
    Running,
    /// They are; a person decides whether to advance.
    Waiting,
    /// No further agent is switched until it is started again.
    Paused,
    /// The last stage is done.
    Completed,
    /// What was switched is being switched back.
    RollingBack,
    /// It is.
    RolledBack,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Planned,
        Self::Running,
        Self::Waiting,
        Self::Paused,
        Self::Completed,
        Self::RollingBack,
        Self::RolledBack,
    ];

    /// The spelling in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Reads our own spelling.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether there is work that needs no person.
    pub const fn is_working(self) -> bool {
        matches!(self, Self::Running | Self::RollingBack)
    }

    /// Whether the guard looks at its calls.
    pub const fn is_guarded(self) -> bool {
        matches!(self, Self::Running | Self::Waiting | Self::Completed)
    }
}

/// On whose account a rollout is paused or rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutReason)]
pub enum Reason {
    /// Somebody asked for it.
    Person,
    /// The guard found the calls to be worse.
    Guard,
}

impl Reason {
    /// The spelling in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Guard => "guard",
        }
    }

    /// Reads our own spelling.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Person, Self::Guard].into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// How far it has come.
    pub state: State,
    /// How many stages were begun.
    pub stage: u16,
    /// How many there are.
    pub stages: u16,
}

/// What speaks for or against the next stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing speaks against it.
    Open,
    /// The guard has too few calls to tell, and the one who asks did not say that this is all right.
    NotEnoughCalls,
    /// So many agents or numbers failed, and the one who asks did not say that this is all right.
    Failures(u64),
    /// The guard found the calls to be worse. Nobody can overrule that; starting again makes it count anew.
    Worse,
}

/// Something that happens to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody starts it, or has what failed tried again.
    Start,
    /// Somebody asks for the next stage.
    Advance(Gate),
    /// No further agent shall be switched.
    Pause(Reason),
    /// What was switched shall be switched back.
    RollBack(Reason),
    /// Every agent of the stages begun is switched or has failed, at Twilio too.
    StageDone,
    /// Every agent is switched back or has failed to be.
    RestoreDone,
}

/// Why something cannot happen to a rollout now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has not been started.
    #[error("the rollout has not been started")]
    NotStarted,
    /// The stage before is still being done.
    #[error("the stage is still being done")]
    StageRunning,
    /// It is paused.
    #[error("the rollout is paused: start it again first")]
    Paused,
    /// There is no further stage.
    #[error("the last stage is done: there is no further one")]
    NoFurtherStage,
    /// It is rolled back, or about to be.
    #[error("the rollout is rolled back: plan a new one")]
    RolledBack,
    /// It has nothing left to pause.
    #[error("the rollout is done: there is nothing to pause")]
    NothingToPause,
    /// The guard cannot tell yet.
    #[error("the guard has not enough calls for a verdict yet")]
    NotEnoughCalls,
    /// Something failed.
    #[error("{0} failed in the stages so far")]
    Failures(u64),
    /// The guard found the calls to be worse.
    #[error("the guard found the calls of switched agents to be worse")]
    Worse,
}

impl Refusal {
    /// Whether it passes by itself or by a person's decision, rather than never.
    pub const fn needs_a_person(self) -> bool {
        matches!(self, Self::NotEnoughCalls | Self::Failures(_) | Self::Paused | Self::StageRunning)
    }
}

/// What follows for where the rollout stands: `None` when it stands there already.
#[expect(clippy::match_same_arms, reason = "one line for each rule, by state")]
pub fn next(at: Position, input: Input) -> Result<Option<Position>, Refusal> {
    use State::{Completed, Paused, Planned, RolledBack, RollingBack, Running, Waiting};
    let to = |state| Ok(Some(Position { state, ..at }));
    match (at.state, input) {
        (Planned, Input::Start) => Ok(Some(Position { state: Running, stage: 1, ..at })),
        // What failed is tried again; where nothing did, the stage is done at once.
        (Waiting | Paused | Completed, Input::Start) => to(Running),
        (Running, Input::Start) => Ok(None),
        (RollingBack | RolledBack, Input::Start | Input::Advance(_) | Input::Pause(_)) => Err(Refusal::RolledBack),

        (Waiting, Input::Advance(gate)) => match gate {
            Gate::Open if at.stage < at.stages => Ok(Some(Position { state: Running, stage: at.stage + 1, ..at })),
            Gate::Open => Err(Refusal::NoFurtherStage),
            Gate::NotEnoughCalls => Err(Refusal::NotEnoughCalls),
            Gate::Failures(count) => Err(Refusal::Failures(count)),
            Gate::Worse => Err(Refusal::Worse),
        },
        (Planned, Input::Advance(_) | Input::Pause(_)) => Err(Refusal::NotStarted),
        (Running, Input::Advance(_)) => Err(Refusal::StageRunning),
        (Paused, Input::Advance(_)) => Err(Refusal::Paused),
        (Completed, Input::Advance(_)) => Err(Refusal::NoFurtherStage),

        (Running | Waiting, Input::Pause(_)) | (Completed, Input::Pause(Reason::Guard)) => to(Paused),
        (Paused, Input::Pause(_)) => Ok(None),
        (Completed, Input::Pause(Reason::Person)) => Err(Refusal::NothingToPause),

        (RollingBack, Input::RollBack(_)) => Ok(None),
        // Rolled back already: what could not be switched back is tried again.
        (Planned | Running | Waiting | Paused | Completed | RolledBack, Input::RollBack(_)) => to(RollingBack),

        (Running, Input::StageDone) => to(if at.stage < at.stages { Waiting } else { Completed }),
        (RollingBack, Input::RestoreDone) => to(RolledBack),
        // Somebody has paused it or turned it round meanwhile: that counts.
        (_, Input::StageDone | Input::RestoreDone) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(state: State, begun: u16) -> Position {
        Position { state, stage: begun, stages: 3 }
    }

    #[test]
    fn a_rollout_goes_stage_by_stage() {
        let mut position = at(State::Planned, 0);
        let course = [
            (Input::Start, State::Running, 1),
            (Input::StageDone, State::Waiting, 1),
            (Input::Advance(Gate::Open), State::Running, 2),
            (Input::StageDone, State::Waiting, 2),
            (Input::Advance(Gate::Open), State::Running, 3),
            (Input::StageDone, State::Completed, 3),
            (Input::RollBack(Reason::Person), State::RollingBack, 3),
            (Input::RestoreDone, State::RolledBack, 3),
        ];
        for (input, state, stage) in course {
            position = next(position, input).expect("allowed").expect("a change");
            assert_eq!((position.state, position.stage), (state, stage), "{input:?}");
        }
    }

    #[test]
    fn only_an_open_gate_lets_the_next_stage_begin() {
        let waiting = at(State::Waiting, 1);
        assert_eq!(next(waiting, Input::Advance(Gate::NotEnoughCalls)), Err(Refusal::NotEnoughCalls));
        assert_eq!(next(waiting, Input::Advance(Gate::Failures(2))), Err(Refusal::Failures(2)));
        assert_eq!(next(waiting, Input::Advance(Gate::Worse)), Err(Refusal::Worse));
        assert_eq!(next(at(State::Running, 1), Input::Advance(Gate::Open)), Err(Refusal::StageRunning));
        assert_eq!(next(at(State::Paused, 1), Input::Advance(Gate::Open)), Err(Refusal::Paused));
    }

    #[test]
    fn what_was_asked_for_again_changes_nothing() {
        assert_eq!(next(at(State::Running, 2), Input::Start), Ok(None));
        assert_eq!(next(at(State::Paused, 2), Input::Pause(Reason::Person)), Ok(None));
        assert_eq!(next(at(State::RollingBack, 2), Input::RollBack(Reason::Guard)), Ok(None));
    }

    #[test]
    fn a_pause_holds_whatever_was_under_way() {
        let paused = next(at(State::Running, 1), Input::Pause(Reason::Person)).expect("allowed").expect("a change");
        assert_eq!(paused, at(State::Paused, 1));
        assert_eq!(next(paused, Input::StageDone), Ok(None));
        assert_eq!(next(paused, Input::Start), Ok(Some(at(State::Running, 1))));
        let completed = at(State::Completed, 3);
        assert_eq!(next(completed, Input::Pause(Reason::Guard)), Ok(Some(at(State::Paused, 3))));
        assert_eq!(next(completed, Input::Pause(Reason::Person)), Err(Refusal::NothingToPause));
    }

    #[test]
    fn spellings_are_read_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.as_str());
        }
        for reason in [Reason::Person, Reason::Guard] {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Start),
            Just(Input::Advance(Gate::Open)),
            Just(Input::Advance(Gate::NotEnoughCalls)),
            Just(Input::Advance(Gate::Worse)),
            Just(Input::Pause(Reason::Person)),
            Just(Input::Pause(Reason::Guard)),
            Just(Input::RollBack(Reason::Guard)),
            Just(Input::StageDone),
            Just(Input::RestoreDone),
        ]
    }

    proptest! {
        /// Whatever happens, a stage is begun only by a person, one at a time, and nothing begins after a rollback.
        #[test]
        fn no_stage_begins_by_itself(inputs in prop::collection::vec(input(), 0..40)) {
            let mut position = at(State::Planned, 0);
            for input in inputs {
                let before = position;
                if let Ok(Some(to)) = next(position, input) {
                    position = to;
                }
                if position.stage != before.stage {
                    prop_assert_eq!(position.stage, before.stage + 1);
                    prop_assert!(matches!(input, Input::Start | Input::Advance(Gate::Open)));
                }
                if matches!(before.state, State::RollingBack | State::RolledBack) {
                    prop_assert!(matches!(position.state, State::RollingBack | State::RolledBack));
                }
                prop_assert!(position.stage <= position.stages);
            }
        }
    }
}
