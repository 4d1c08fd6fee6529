//! Exactly what would change: of agents and numbers here, and of the numbers at Twilio.

use std::collections::HashMap;

use serde::Serialize;
use shared::{AgentId, E164, NumberId, ProjectId, SystemType};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::state::{Input, Reason};
use super::{Request, retries};
use crate::config::{Config, Systems};
use crate::numbers::pointing::outlook::NumberChange;
use crate::numbers::pointing::{self, Bases};
use crate::providers::twilio::numbers::VoiceSettings;
use crate::store::agents::{self, Agent};
use crate::store::numbers::{self, PhoneNumber};
use crate::store::pointings::Pointing;
use crate::store::rollouts::items::{self, Item};
use crate::store::rollouts::numbers as rollout_numbers;
use crate::store::rollouts::{Rollout, RolloutId};
use crate::store::{self, StoreError};
use crate::switching::{self, Image, NumberImage, Return};

/// Agents that are read at a time.
const PAGE: i64 = 1_000;

/// What would be done to an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlannedAgent)]
pub struct PlannedAgent {
    /// Who it is.
    pub agent_id: AgentId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub project_id: ProjectId,
    /// The stage that it comes with, counted from 1.
    pub stage: u16,
    /// What it and its numbers are.
    pub before: Image,
    /// What they would be; `None`: they are that already.
    #[schema(required)]
    pub after: Option<Image>,
    /// What is missing for that. The agent would fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<&'static str>,
    /// What becomes of its numbers at Twilio, if they change.
    pub at_twilio: Vec<NumberChange>,
}

impl PlannedAgent {
    /// Whether there is anything to do.
    pub fn changes(&self) -> bool {
        self.after.is_some()
    }
}

/// What a way back would do to an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReturningAgent)]
pub struct ReturningAgent {
    /// What it is, and what it becomes again.
    #[serde(flatten)]
    pub agent: PlannedAgent,
    /// Numbers that it answered and does not any more: they stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<E164>,
}

/// What a request would change now. Agents that stay as they are are left out.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutChanges)]
pub struct Changes {
    /// Where agents would go.
    pub target: SystemType,
    /// Agents that would be switched.
    pub forth: Vec<PlannedAgent>,
    /// Agents that would be switched back.
    pub back: Vec<ReturningAgent>,
    /// Agents that are gone, and would fail.
    pub gone: Vec<AgentId>,
    /// Numbers that came to a bad end at Twilio and would be tried again.
    pub again: Vec<NumberChange>,
}

impl Changes {
    /// How many agents would be switched, either way.
    pub fn agents(&self) -> usize {
        self.forth.len() + self.back.len()
    }
}

/// Works out what a request would change; writes nothing.
pub async fn preview(
    conn: &mut PgConnection,
    config: &Config,
    rollout: &Rollout,
    request: Request,
) -> store::Result<Changes> {
    let mut changes = Changes { target: rollout.target, ..Changes::default() };
    let items = concerned(conn, rollout, request).await?;
    let ids: Vec<AgentId> = items.iter().map(|item| item.agent_id).collect();
    let mut by_id: HashMap<AgentId, Agent> =
        agents::select(conn, None, Some(&ids)).await?.into_iter().map(|agent| (agent.id, agent)).collect();
    let mut numbers = Numbers::of(conn, config, &ids).await?;
    let exact = if request == Request::RollBack { exact(conn, rollout.id, &ids).await? } else { HashMap::new() };
    for item in items {
        let Some(agent) = by_id.remove(&item.agent_id) else {
            changes.gone.push(item.agent_id);
            continue;
        };
        let stage = u16::try_from(item.stage).map_err(|_| StoreError::Corrupt("rollout stage"))?;
        if request == Request::RollBack {
            changes.back.push(numbers.returning(agent, &image(&item)?, stage, &exact));
        } else {
            changes.forth.push(numbers.planned(agent, rollout.target, stage));
        }
    }
    changes.forth.retain(PlannedAgent::changes);
    let input = match request {
        Request::Start => Some(Input::Start),
        Request::RollBack => Some(Input::RollBack(Reason::Person)),
        Request::Advance(_) | Request::Pause => None,
    };
    if input.is_some_and(|input| retries(rollout.state, input)) {
        changes.again = again(conn, config, rollout.id).await?;
    }
    Ok(changes)
}

/// The agents that a request would set to work on.
async fn concerned(conn: &mut PgConnection, rollout: &Rollout, request: Request) -> store::Result<Vec<Item>> {
    let (mut concerned, mut after) = (Vec::new(), 0);
    loop {
        let page = items::list(conn, rollout.id, None, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(concerned) };
        after = last.position;
        concerned.extend(page.into_iter().filter(|item| request.concerns(rollout, item.state, item.stage)));
    }
}

/// What a before-image says.
fn image(item: &Item) -> store::Result<Image> {
    let image = item.before.clone().and_then(|before| serde_json::from_value(before).ok());
    image.ok_or(StoreError::Corrupt("before-image"))
}

/// The settings that numbers get back at Twilio; `None`: Twilio was not asked since, and is told nothing.
async fn exact(
    conn: &mut PgConnection,
    rollout: RolloutId,
    agents: &[AgentId],
) -> store::Result<HashMap<NumberId, Option<VoiceSettings>>> {
    let numbers = rollout_numbers::of_agents(conn, rollout, agents).await?;
    let exact = numbers.into_iter().filter_map(|number| match number.way_back() {
        Some(settings) => Some((number.number_id, Some(settings))),
        None => (!number.seen && number.state != "none").then_some((number.number_id, None)),
    });
    Ok(exact.collect())
}

/// What would come of numbers that came to a bad end.
async fn again(conn: &mut PgConnection, config: &Config, rollout: RolloutId) -> store::Result<Vec<NumberChange>> {
    let failed: HashMap<NumberId, E164> = rollout_numbers::failed(conn, rollout).await?.into_iter().collect();
    let ids: Vec<NumberId> = failed.keys().copied().collect();
    let known = pointing::state_of(conn, &ids).await?;
    let bases = Bases::of(config);
    let judged = known.iter().filter_map(|known| Some(bases.judged(failed.get(&known.number_id)?, known)));
    let mut again: Vec<NumberChange> = judged.collect();
    again.sort_unstable_by(|one, other| one.number.cmp(&other.number));
    Ok(again)
}

/// The numbers of agents, and what they are judged by.
pub(super) struct Numbers {
    of_agents: HashMap<AgentId, Vec<PhoneNumber>>,
    known: HashMap<NumberId, Pointing>,
    bases: Bases,
    systems: Systems,
}

impl Numbers {
    /// Reads those of these agents.
    pub(super) async fn of(conn: &mut PgConnection, config: &Config, agents: &[AgentId]) -> store::Result<Self> {
        let mut of_agents: HashMap<AgentId, Vec<PhoneNumber>> = HashMap::new();
        let mut ids = Vec::new();
        for number in numbers::of_agents(conn, agents).await? {
            ids.push(number.id);
            if let Some(agent) = number.agent_id {
                of_agents.entry(agent).or_default().push(number);
            }
        }
        let known = pointing::state_of(conn, &ids).await?;
        let known = known.into_iter().map(|pointing| (pointing.number_id, pointing)).collect();
        Ok(Self { of_agents, known, bases: Bases::of(config), systems: config.systems() })
    }

    /// What a switch does to an agent.
    pub(super) fn planned(&mut self, agent: Agent, target: SystemType, stage: u16) -> PlannedAgent {
        let numbers = self.of_agents.remove(&agent.id).unwrap_or_default();
        let before = switching::image(&agent, &numbers);
        let after = (!switching::is_on(&before, target)).then(|| Image {
            system_type: target,
            // Set at the switch, where there is one.
            switched_at: if agent.system_type == target { agent.switched_at } else { None },
            numbers: numbers
                .iter()
                .map(|number| NumberImage { number: number.number.clone(), system_type: target })
                .collect(),
        });
        self.changed(agent, &numbers, stage, before, after, &HashMap::new())
    }

    /// What a way back to this image does to an agent; `exact`: the settings that its numbers get back at Twilio, and
    /// `None` for a number that Twilio was not asked about since, so that it has them still.
    pub(super) fn returning(
        &mut self,
        agent: Agent,
        image: &Image,
        stage: u16,
        exact: &HashMap<NumberId, Option<VoiceSettings>>,
    ) -> ReturningAgent {
        let numbers = self.of_agents.remove(&agent.id).unwrap_or_default();
        let Return { to, gone } = switching::way_back(&numbers, image);
        let before = switching::image(&agent, &numbers);
        let agent = self.changed(agent, &numbers, stage, before, Some(to), exact);
        ReturningAgent { agent, gone }
    }

    fn changed(
        &self,
        agent: Agent,
        numbers: &[PhoneNumber],
        stage: u16,
        before: Image,
        after: Option<Image>,
        exact: &HashMap<NumberId, Option<VoiceSettings>>,
    ) -> PlannedAgent {
        let (mut missing, mut at_twilio) = (Vec::new(), Vec::new());
        if let Some(after) = &after {
            let lacks = switching::missing(&agent, numbers, self.systems, after.system_type);
            missing = lacks.into_iter().map(switching::Missing::as_str).collect();
            let pairs = numbers.iter().zip(&after.numbers).filter(|_| missing.is_empty());
            at_twilio = pairs.map(|(number, to)| self.at_twilio(number, &agent, to.system_type, exact)).collect();
        }
        let (agent_id, project_id) = (agent.id, agent.project_id);
        PlannedAgent { agent_id, name: agent.name, project_id, stage, before, after, missing, at_twilio }
    }

    fn at_twilio(
        &self,
        number: &PhoneNumber,
        agent: &Agent,
        to: SystemType,
        exact: &HashMap<NumberId, Option<VoiceSettings>>,
    ) -> NumberChange {
        let known = self.known.get(&number.id);
        match exact.get(&number.id) {
            Some(None) => NumberChange::unchanged(&number.number, known),
            image => self.bases.outlook(number, agent, to, known, image.and_then(Option::as_ref)),
        }
    }
}
