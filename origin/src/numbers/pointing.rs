//! Pointing: has Twilio send a number's calls where its system wants them.
//!
//! Whoever changes a number's system asks for it in the same transaction, with [`enqueue`]; the [`job`] brings it about.
//! Like replication it is state-based: it reads what is wanted when it runs, so late and repeated jobs do no harm.
//!
//! Twilio's settings of a number belong to its owner. So they are read first. Settings that Tandem neither made nor has
//! seen are not overwritten: that is a conflict, and a person decides. The settings that calls reached Vapi with are
//! remembered, all of them, and are what a way back restores. Numbers that are handed over at the edge stay there.
//!
//! Until Twilio has been told, calls go on arriving where they did before. Nobody is turned away for it: a call that
//! Vapi was sent is Vapi's although its agent has left, and one that we were sent is handed to Vapi.

pub mod job;
pub mod outlook;
mod work;

use std::collections::HashMap;

use serde_json::json;
use shared::route::VapiHandover;
use shared::{AgentId, E164, NumberId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::config::Config;
use crate::providers::twilio::numbers::VoiceSettings;
use crate::store;
use crate::store::events::{self, Actor, NewEvent};
use crate::store::pointings::{self, Place, Pointing, PointingState};

/// The event of somebody who wants Twilio to be told once more.
const ASKED_AGAIN: &str = "number.pointing_requested";

/// For how long after a change of its settings Twilio, or a call on its way, may still follow the old ones. Both take
/// seconds; clocks differ by less than the rest.
const GRACE_SECONDS: f64 = 60.0;

/// Asks for an agent's numbers to be pointed where they belong, once the caller's transaction is committed.
///
/// Call it late and before [`crate::replication::enqueue`]: it holds a lock that every other caller waits for.
pub async fn enqueue(conn: &mut PgConnection, agent: AgentId) -> store::Result<()> {
    if pointings::request_for_agent(conn, agent).await? {
        job::enqueue(conn).await?;
    }
    Ok(())
}

/// The same, with exact settings for numbers that go to Vapi: what Twilio had before they were switched.
pub async fn enqueue_exactly(
    conn: &mut PgConnection,
    agent: AgentId,
    settings: &[(NumberId, VoiceSettings)],
) -> store::Result<()> {
    let requested = pointings::request_for_agent(conn, agent).await?;
    // Where each goes is known only now.
    if pointings::request_images(conn, settings).await? || requested {
        job::enqueue(conn).await?;
    }
    Ok(())
}

/// How far these numbers have come. Those that Twilio is not told about are missing.
pub async fn state_of(conn: &mut PgConnection, numbers: &[NumberId]) -> store::Result<Vec<Pointing>> {
    pointings::of_numbers(conn, numbers).await
}

/// The same by number.
pub async fn by_number(
    conn: &mut PgConnection,
    numbers: impl Iterator<Item = NumberId>,
) -> store::Result<HashMap<NumberId, Pointing>> {
    let states = state_of(conn, &numbers.collect::<Vec<_>>()).await?;
    Ok(states.into_iter().map(|state| (state.number_id, state)).collect())
}

/// Asks once more for what was asked for, after a conflict or a failure. With `overwrite`, settings that somebody else
/// made give way, and are remembered for the way back to Vapi. `false`: Twilio is not told about this number.
pub async fn retry(conn: &mut PgConnection, number: NumberId, overwrite: bool, actor: &Actor) -> store::Result<bool> {
    let Some(task) = pointings::task(conn, number).await? else { return Ok(false) };
    let asked = pointings::request_again(conn, number, overwrite).await?;
    if asked {
        let Pointing { state, request, place, found, .. } = &task.pointing;
        let event = NewEvent {
            agent_id: task.agent_id,
            number_id: Some(number),
            before: Some(json!({ "state": state, "request": request })),
            after: Some(json!({ "state": PointingState::Pending, "request": request + 1 })),
            details: json!({ "place": place, "overwrite": overwrite, "found": found }),
            ..NewEvent::new(task.project_id, ASKED_AGAIN, actor)
        };
        events::append(conn, &event).await?;
        job::enqueue(conn).await?;
    }
    Ok(asked)
}

/// Whether Twilio may have sent a call that began then straight to Vapi, although the agent has left it.
pub async fn may_have_gone_to_vapi(
    conn: &mut PgConnection,
    agent: AgentId,
    number: Option<&E164>,
    began_at: OffsetDateTime,
) -> store::Result<bool> {
    pointings::may_be_elsewhere(conn, agent, number, Place::Edge, began_at, GRACE_SECONDS).await
}

/// Whether Twilio may have sent us a call that begins now, although the number should go straight to Vapi.
pub async fn may_have_come_to_us(
    conn: &mut PgConnection,
    agent: AgentId,
    number: &E164,
    now: OffsetDateTime,
) -> store::Result<bool> {
    pointings::may_be_elsewhere(conn, agent, Some(number), Place::Vapi, now, GRACE_SECONDS).await
}

/// Where calls to a number go that `system` answers. The query of [`pointings::request_for_agent`] says the same.
pub fn place(system: SystemType, handover: VapiHandover) -> Place {
    match (system, handover) {
        (SystemType::Vapi, VapiHandover::None) => Place::Vapi,
        _ => Place::Edge,
    }
}

/// What is to be done about what Twilio says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is as it should be.
    Settled,
    /// It is to say this instead.
    Write(VoiceSettings),
    /// Somebody else has changed it.
    Conflict,
}

/// What every number is judged by.
#[derive(Clone, Debug)]
pub struct Bases {
    /// The settings with which calls come to us.
    edge: VoiceSettings,
    /// Where Vapi is asked for calls.
    vapi: String,
}

impl Bases {
    /// Those of an origin.
    pub fn of(config: &Config) -> Self {
        let vapi = config.vapi.as_ref().map_or("https://api.vapi.ai", |vapi| vapi.api_url.as_str());
        Self {
            edge: VoiceSettings::to_edge(&config.edge_base(), &config.origin_base()),
            vapi: vapi.trim_end_matches('/').to_owned(),
        }
    }

    /// What is to be done, and what is to be remembered for a way back to Vapi.
    fn judge(&self, pointing: &Pointing, found: &VoiceSettings) -> (Verdict, Option<VoiceSettings>) {
        let remembered = pointing.remembered.clone();
        if !is_expected(pointing, found) {
            let verdict = if *found == self.target(pointing, remembered.as_ref(), found) {
                Verdict::Settled
            } else {
                Verdict::Conflict
            };
            return (verdict, remembered);
        }
        // What is not ours brought calls to Vapi, unless it was there before Vapi knew the number. It is remembered when
        // calls leave, or when there is nothing else to go by.
        let led_to_vapi = pointing.ours.is_none() || found.is_vapis() || remembered.is_some();
        let counts = pointing.place == Place::Edge || remembered.is_none();
        let remembered = if *found != self.edge && led_to_vapi && counts { Some(found.clone()) } else { remembered };
        let target = self.target(pointing, remembered.as_ref(), found);
        let verdict = if *found == target { Verdict::Settled } else { Verdict::Write(target) };
        (verdict, remembered)
    }

    fn target(&self, pointing: &Pointing, remembered: Option<&VoiceSettings>, found: &VoiceSettings) -> VoiceSettings {
        self.wanted(pointing, remembered).unwrap_or_else(|| found.clone().saved_by_vapi(&self.vapi))
    }

    /// What is wanted whatever Twilio says. `None`: it depends on that.
    fn wanted(&self, pointing: &Pointing, remembered: Option<&VoiceSettings>) -> Option<VoiceSettings> {
        match (&pointing.image, pointing.place) {
            (Some(image), _) => Some(image.clone()),
            (None, Place::Edge) => Some(self.edge.clone()),
            (None, Place::Vapi) => remembered.cloned(),
        }
    }
}

/// Whether nobody else can have changed the settings.
fn is_expected(pointing: &Pointing, found: &VoiceSettings) -> bool {
    // A number that was never asked about is as its owner left it, who wants it to be moved.
    let known = pointing.ours.as_ref().is_none_or(|ours| ours.contains(found));
    let by_vapi = found.is_vapis() && (pointing.vapi_saved || pointing.place == Place::Vapi);
    known || by_vapi
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn bases() -> Bases {
        Bases {
            edge: VoiceSettings::to_edge("https://edge.test", "https://origin.test"),
            vapi: "https://v.test".into(),
        }
    }

    fn at(url: &str) -> VoiceSettings {
        let post = Some("POST".to_owned());
        VoiceSettings { voice_url: Some(url.to_owned()), voice_method: post, ..VoiceSettings::default() }
    }

    fn pointing(place: Place) -> Pointing {
        Pointing::unasked(NumberId(Uuid::nil()), place)
    }

    #[test]
    fn a_number_leaves_vapi_and_comes_back_exactly() {
        let own = VoiceSettings { trunk_sid: Some("TK1".to_owned()), ..at("https://v.test/twilio/inbound_call?x=1") };
        let (verdict, remembered) = bases().judge(&pointing(Place::Edge), &own);
        assert_eq!((verdict, remembered.as_ref()), (Verdict::Write(bases().edge), Some(&own)));
        let back = Pointing { remembered, ours: Some(vec![bases().edge]), ..pointing(Place::Vapi) };
        assert_eq!(bases().judge(&back, &bases().edge), (Verdict::Write(own.clone()), Some(own)));
    }

    #[test]
    fn what_somebody_else_changed_is_not_overwritten() {
        let theirs = at("https://them.test/voice");
        for place in [Place::Edge, Place::Vapi] {
            let settled = Pointing {
                ours: Some(vec![bases().edge]),
                remembered: Some(at("https://v.test/twilio/inbound_call")),
                ..pointing(place)
            };
            let (verdict, remembered) = bases().judge(&settled, &theirs);
            assert_eq!((verdict, &remembered), (Verdict::Conflict, &settled.remembered));
        }
        // Unless it is what we want anyway.
        let settled = Pointing { ours: Some(vec![at("https://v.test/twilio/inbound_call")]), ..pointing(Place::Edge) };
        assert_eq!(bases().judge(&settled, &bases().edge).0, Verdict::Settled);
    }

    #[test]
    fn a_request_whose_answer_was_lost_is_no_conflict() {
        let vapi = at("https://v.test/twilio/inbound_call");
        let ours = Some(vec![vapi.clone(), bases().edge]);
        // Whether or not it took effect, and whatever is wanted by now.
        for found in [vapi.clone(), bases().edge] {
            for place in [Place::Edge, Place::Vapi] {
                let unsure = Pointing { ours: ours.clone(), remembered: Some(vapi.clone()), ..pointing(place) };
                let (verdict, remembered) = bases().judge(&unsure, &found);
                assert_ne!(verdict, Verdict::Conflict);
                assert_eq!(remembered.as_ref(), Some(&vapi));
            }
        }
    }

    #[test]
    fn vapi_may_rewrite_what_it_was_asked_to_save_and_the_remembered_settings_come_back() {
        let own = VoiceSettings { voice_fallback_url: Some("https://own.test/f".into()), ..at("https://own.test/v") };
        let back = Pointing {
            remembered: Some(own.clone()),
            ours: Some(vec![bases().edge]),
            vapi_saved: true,
            ..pointing(Place::Vapi)
        };
        let rewritten = bases().edge.saved_by_vapi("https://api.vapi.ai");
        assert_eq!(bases().judge(&back, &rewritten), (Verdict::Write(own.clone()), Some(own.clone())));
        // Switched back in between: what Vapi did is not taken for somebody else's change.
        let away = Pointing { place: Place::Edge, ..back };
        assert_eq!(bases().judge(&away, &rewritten).0, Verdict::Write(bases().edge));
        assert_eq!(bases().judge(&Pointing { vapi_saved: false, ..away }, &rewritten).0, Verdict::Conflict);
    }

    #[test]
    fn a_number_that_never_was_at_vapi_gets_what_an_import_sets() {
        let new = Pointing { ours: Some(vec![bases().edge]), ..pointing(Place::Vapi) };
        // Vapi has set it, or has not.
        let imported = bases().edge.saved_by_vapi("https://api.vapi.ai");
        assert_eq!(bases().judge(&new, &imported), (Verdict::Settled, Some(imported)));
        assert_eq!(bases().judge(&new, &bases().edge).0, Verdict::Write(bases().edge.saved_by_vapi("https://v.test")));
    }

    #[test]
    fn settings_from_before_vapi_knew_the_number_are_no_way_to_vapi() {
        let own = at("https://own.test/voice");
        let adopted = |place| Pointing { ours: Some(vec![own.clone()]), ..pointing(place) };
        assert_eq!(bases().judge(&adopted(Place::Edge), &own), (Verdict::Write(bases().edge), None));
        let imported = own.clone().saved_by_vapi("https://v.test");
        assert_eq!(bases().judge(&adopted(Place::Vapi), &own), (Verdict::Write(imported), None));
    }

    #[test]
    fn a_before_image_comes_before_everything_else() {
        let image = at("https://image.test/v");
        for place in [Place::Edge, Place::Vapi] {
            let wanted = Pointing { image: Some(image.clone()), ours: Some(vec![bases().edge]), ..pointing(place) };
            assert_eq!(bases().judge(&wanted, &bases().edge).0, Verdict::Write(image.clone()));
            assert_eq!(bases().judge(&wanted, &image).0, Verdict::Settled);
        }
    }
}
