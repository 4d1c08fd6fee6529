//! What the job would do about a number at Twilio, told without asking Twilio: by the job's own judgement of what Twilio
//! was last seen to have. Pure.

use serde::{Deserialize as _, Serialize};
use shared::route::VapiHandover;
use shared::{E164, SystemType};
use utoipa::ToSchema;

use super::{Bases, Verdict, place};
use crate::providers::twilio::numbers::VoiceSettings;
use crate::store::agents::Agent;
use crate::store::numbers::PhoneNumber;
use crate::store::pointings::{Place, Pointing, PointingState};

/// What becomes of a number at Twilio. The spelling is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NumberChangeKind)]
pub enum Kind {
    /// It gets the settings `wanted`.
    Set,
    /// Nothing is done: it stays as it is.
    Unchanged,
    /// Twilio was last seen with settings that somebody else made: they are left alone.
    LeftAlone,
    /// Twilio is not told about it: it comes to us whichever system answers.
    NotTold,
    /// Twilio was never asked about it. If it leads to Vapi it stays as it is, otherwise it gets what Vapi sets.
    Unknown,
}

/// What becomes of a number at Twilio, as far as our record knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NumberChange)]
pub struct NumberChange {
    /// The number.
    pub number: E164,
    /// What is done.
    pub change: Kind,
    /// What Twilio said when it was last asked; `null`: it was not.
    #[schema(required)]
    pub found: Option<VoiceSettings>,
    /// What it has afterwards, if that is known.
    #[schema(required)]
    pub wanted: Option<VoiceSettings>,
}

impl NumberChange {
    /// Nothing becomes of it.
    pub fn unchanged(number: &E164, known: Option<&Pointing>) -> Self {
        let found = known.and_then(seen);
        Self { number: number.clone(), change: Kind::Unchanged, wanted: found.clone(), found }
    }
}

impl Bases {
    /// What becomes of a number at Twilio once `system` answers it, for an agent. `image`: what it gets exactly, if it
    /// goes to Vapi.
    pub fn outlook(
        &self,
        number: &PhoneNumber,
        agent: &Agent,
        system: SystemType,
        known: Option<&Pointing>,
        image: Option<&VoiceSettings>,
    ) -> NumberChange {
        let place = place(system, number.vapi_handover);
        let image = image.filter(|_| place == Place::Vapi).cloned();
        // The next two as in the query of `pointings::request_for_agent`.
        if number.vapi_handover != VapiHandover::None && known.is_none() {
            return NumberChange { number: number.number.clone(), change: Kind::NotTold, found: None, wanted: None };
        }
        let stays = |known: &Pointing| {
            let is_answered = place == Place::Edge || known.assistant == agent.vapi_assistant_id;
            known.place == place && known.state == PointingState::Settled && known.image.is_none() && is_answered
        };
        if image.is_none() && known.is_some_and(stays) {
            return NumberChange::unchanged(&number.number, known);
        }
        let known = known.cloned().unwrap_or_else(|| Pointing::unasked(number.id, place));
        self.judged(&number.number, &Pointing { place, image, ..known })
    }

    /// What becomes of a number by its record as it is.
    pub fn judged(&self, number: &E164, pointing: &Pointing) -> NumberChange {
        let found = seen(pointing);
        let (change, wanted) = match &found {
            Some(found) => match self.judge(pointing, found).0 {
                Verdict::Write(wanted) => (Kind::Set, Some(wanted)),
                Verdict::Settled => (Kind::Unchanged, Some(found.clone())),
                Verdict::Conflict => (Kind::LeftAlone, None),
            },
            None => match self.wanted(pointing, pointing.remembered.as_ref()) {
                Some(wanted) => (Kind::Set, Some(wanted)),
                None => (Kind::Unknown, None),
            },
        };
        NumberChange { number: number.clone(), change, found, wanted }
    }
}

/// What Twilio was last seen to have: if somebody else has changed it since it was told, by the check for drift.
fn seen(pointing: &Pointing) -> Option<VoiceSettings> {
    let read = |value: &serde_json::Value| VoiceSettings::deserialize(value).ok();
    let differences = pointing.drift.as_ref().and_then(|drift| drift.as_array()).into_iter().flatten();
    differences
        .filter(|difference| difference["what"] == "twilio" && read(&difference["expected"]) == pointing.found)
        .find_map(|difference| read(&difference["found"]))
        .or_else(|| pointing.found.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::{AgentId, NumberId, ProjectId};
    use uuid::Uuid;

    use super::*;

    fn bases() -> Bases {
        Bases {
            edge: VoiceSettings::to_edge("https://edge.test", "https://origin.test"),
            vapi: "https://v.test".to_owned(),
        }
    }

    fn own() -> VoiceSettings {
        VoiceSettings { voice_fallback_url: Some("https://own.test/f".to_owned()), ..bases().edge }
            .saved_by_vapi("https://api.vapi.ai")
    }

    fn agent() -> Agent {
        Agent {
            id: AgentId(Uuid::nil()),
            project_id: ProjectId(Uuid::nil()),
            name: "Reception".to_owned(),
            instructions: "Answer the phone.".to_owned(),
            greeting: None,
            realtime: None,
            vapi_assistant_id: Some("assistant-1".parse().unwrap()),
            fallback_number: None,
            system_type: SystemType::Vapi,
            switched_at: None,
            revision: 1,
        }
    }

    fn number(vapi_handover: VapiHandover) -> PhoneNumber {
        PhoneNumber {
            id: NumberId(Uuid::nil()),
            project_id: ProjectId(Uuid::nil()),
            number: "+15550100".parse().unwrap(),
            agent_id: Some(AgentId(Uuid::nil())),
            system_type: SystemType::Vapi,
            vapi_handover,
            vapi_phone_number_id: Some("number-1".to_owned()),
            releasing_since: None,
            revision: 1,
        }
    }

    /// As it is once Twilio was told.
    fn settled(place: Place, found: &VoiceSettings) -> Pointing {
        Pointing {
            state: PointingState::Settled,
            found: Some(found.clone()),
            ours: Some(vec![found.clone()]),
            assistant: agent().vapi_assistant_id,
            ..Pointing::unasked(NumberId(Uuid::nil()), place)
        }
    }

    fn told(to: SystemType, handover: VapiHandover, known: Option<&Pointing>) -> (Kind, Option<VoiceSettings>) {
        let change = bases().outlook(&number(handover), &agent(), to, known, None);
        (change.change, change.wanted)
    }

    #[test]
    fn a_number_that_goes_straight_to_vapi_follows_its_agent() {
        let (there, here) = (settled(Place::Vapi, &own()), settled(Place::Edge, &bases().edge));
        let none = VapiHandover::None;
        assert_eq!(told(SystemType::OpenaiRealtime, none, Some(&there)), (Kind::Set, Some(bases().edge)));
        assert_eq!(told(SystemType::Vapi, none, Some(&there)), (Kind::Unchanged, Some(own())));
        let left = Pointing { remembered: Some(own()), ..here.clone() };
        assert_eq!(told(SystemType::Vapi, none, Some(&left)), (Kind::Set, Some(own())));
        let imported = bases().edge.saved_by_vapi("https://v.test");
        assert_eq!(told(SystemType::Vapi, none, Some(&here)), (Kind::Set, Some(imported)));
    }

    #[test]
    fn a_number_that_was_never_asked_about_has_nothing_to_show() {
        let none = VapiHandover::None;
        assert_eq!(told(SystemType::OpenaiRealtime, none, None), (Kind::Set, Some(bases().edge)));
        assert_eq!(told(SystemType::Vapi, none, None), (Kind::Unknown, None));
    }

    #[test]
    fn a_number_that_is_handed_over_at_the_edge_stays_there() {
        for handover in [VapiHandover::Bypass, VapiHandover::Redirect] {
            for system in [SystemType::OpenaiRealtime, SystemType::Vapi] {
                assert_eq!(told(system, handover, None), (Kind::NotTold, None));
                let here = settled(Place::Edge, &bases().edge);
                assert_eq!(told(system, handover, Some(&here)), (Kind::Unchanged, Some(bases().edge)));
            }
        }
    }

    #[test]
    fn what_somebody_else_has_set_is_left_alone_also_where_only_the_check_has_seen_it() {
        let theirs = VoiceSettings { voice_url: Some("https://them.test/voice".to_owned()), ..own() };
        let none = VapiHandover::None;
        let seen = Pointing { found: Some(theirs.clone()), ..settled(Place::Vapi, &own()) };
        assert_eq!(told(SystemType::OpenaiRealtime, none, Some(&seen)), (Kind::LeftAlone, None));
        let drift = |expected| json!([{ "what": "twilio", "expected": expected, "found": theirs }]);
        let checked = Pointing { drift: Some(drift(own())), ..settled(Place::Vapi, &own()) };
        let change = bases().outlook(&number(none), &agent(), SystemType::OpenaiRealtime, Some(&checked), None);
        assert_eq!((change.change, change.found), (Kind::LeftAlone, Some(theirs.clone())));
        // Twilio was told since.
        let told_since = Pointing { drift: Some(drift(bases().edge)), ..settled(Place::Vapi, &own()) };
        assert_eq!(told(SystemType::OpenaiRealtime, none, Some(&told_since)), (Kind::Set, Some(bases().edge)));
    }

    #[test]
    fn exact_settings_are_for_a_number_that_goes_to_vapi() {
        let here = Pointing { remembered: Some(bases().edge), ..settled(Place::Edge, &bases().edge) };
        let outlook =
            |handover, system| bases().outlook(&number(handover), &agent(), system, Some(&here), Some(&own()));
        assert_eq!(outlook(VapiHandover::None, SystemType::Vapi).wanted, Some(own()));
        assert_eq!(outlook(VapiHandover::None, SystemType::OpenaiRealtime).wanted, Some(bases().edge));
        assert_eq!(outlook(VapiHandover::Bypass, SystemType::Vapi).change, Kind::Unchanged);
    }
}
