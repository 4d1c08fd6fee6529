//! What is sent in which order, what breaks when, and what must be true when all is over. Pure: the same seed and
//! times give the same plan.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::dice::Dice;
use crate::story::{Call, Story, What};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The origin is killed.
    Origin,
    /// Postgres is killed.
    Postgres,
}

/// Something breaks, and is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) broken: Broken,
    /// When so many of the order have been taken to be sent.
    pub(crate) after: usize,
    /// How many requests are answered, or not, before it is mended.
    pub(crate) lasts: usize,
}

/// An event, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) call: usize,
    pub(crate) what: What,
}

/// The whole.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) calls: Vec<Call>,
    pub(crate) events: Vec<Event>,
    /// Positions in `events`, in the order of sending. Some are there twice.
    pub(crate) order: Vec<usize>,
    pub(crate) faults: Vec<Fault>,
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Events at least; the last call's are not cut off.
    pub(crate) events: usize,
    /// Requests until an origin that was killed is started again.
    pub(crate) outage: usize,
    pub(crate) now: OffsetDateTime,
    /// When the agent that is no longer on Vapi left it.
    pub(crate) switched_at: OffsetDateTime,
}

/// Kinds of calls, in turn.
const STORIES: [Story; 12] = [
    Story::Vapi,
    Story::Bridged { last: Some("completed") },
    Story::InFlight,
    Story::Vapi,
    Story::Bridged { last: Some("no-answer") },
    Story::Skipped,
    Story::Vapi,
    Story::Bridged { last: None },
    Story::Bridged { last: Some("failed") },
    Story::Unknown,
    Story::Vapi,
    Story::Bridged { last: Some("completed") },
];
const REASONS: [&str; 4] =
    ["customer-ended-call", "assistant-ended-call", "silence-timed-out", "exceeded-max-duration"];
const FAULTS: [Broken; 6] =
    [Broken::Origin, Broken::Origin, Broken::Postgres, Broken::Origin, Broken::Origin, Broken::Origin];
/// Requests until Postgres is started again: three for each sender, as the origin lets each wait for seconds.
const POSTGRES_OUTAGE: usize = 48;
/// One in so many events is sent twice.
const TWICE: u64 = 10;
/// Places in the order are told in thousandths of an event.
const EVENT: u64 = 1_000;

impl Plan {
    pub(crate) fn new(seed: u64, wish: &Wish) -> Self {
        let mut dice = Dice::new(seed);
        let (mut calls, mut events, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for story in STORIES.into_iter().cycle() {
            if events.len() >= wish.events {
                break;
            }
            // About fifty calls go on at a time, so that events of one meet those of others.
            let mut place = events.len() as u64 * EVENT;
            for what in disorder(story.events(), &mut dice) {
                places.push((place, events.len()));
                if dice.below(TWICE) == 0 {
                    // At once, for two senders to race; or when the first has long been processed.
                    let pause = if dice.below(2) == 0 { 1 } else { EVENT * (200 + dice.below(600)) };
                    places.push((place + pause, events.len()));
                }
                events.push(Event { call: calls.len(), what });
                place += EVENT * dice.below(60);
            }
            calls.push(call(story, calls.len(), &mut dice, wish));
        }
        places.sort_unstable();
        let order: Vec<usize> = places.into_iter().map(|(_, event)| event).collect();
        let faults = FAULTS.into_iter().enumerate().map(|(i, broken)| Fault {
            broken,
            after: order.len() * (i + 1) / (FAULTS.len() + 1),
            lasts: if broken == Broken::Postgres { POSTGRES_OUTAGE } else { wish.outage },
        });
        Self { faults: faults.collect(), calls, events, order }
    }

    /// How many events are sent twice.
    pub(crate) fn twice(&self) -> usize {
        self.order.len() - self.events.len()
    }
}

/// Some calls are told of in a wrong order: the report before the end, the end before the beginning.
fn disorder(mut events: Vec<What>, dice: &mut Dice) -> Vec<What> {
    match dice.below(8) {
        0 => events.reverse(),
        1 => {
            let last = events.len() - 1;
            events.swap(last - 1, last);
        }
        2 => events.rotate_right(2),
        _ => {}
    }
    events
}

fn call(story: Story, n: usize, dice: &mut Dice, wish: &Wish) -> Call {
    let began = match story {
        Story::InFlight => wish.switched_at - Duration::seconds(1),
        _ => wish.now,
    };
    Call {
        story,
        sid: format!("CA{:032x}", dice.id()),
        vapi_id: Uuid::from_u128(dice.id()).to_string(),
        caller: format!("+1555{:07}", 2_000_000 + n),
        began,
        reason: REASONS[n % REASONS.len()],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use time::macros::datetime;

    use super::*;
    use crate::wire::{Parties, Wire};

    fn plan(events: usize) -> Plan {
        let now = datetime!(2026-11-22 15:00 UTC);
        Plan::new(1, &Wish { events, outage: 100, now, switched_at: datetime!(2026-11-22 14:59:30 UTC) })
    }

    #[test]
    fn every_event_is_sent_and_a_tenth_twice() {
        let plan = plan(5_000);
        assert!((5_000..5_020).contains(&plan.events.len()), "{}", plan.events.len());
        let mut times = BTreeMap::new();
        for event in &plan.order {
            *times.entry(*event).or_insert(0) += 1;
        }
        assert_eq!(times.len(), plan.events.len());
        assert!(times.values().all(|times| *times <= 2));
        assert!((400..600).contains(&plan.twice()), "{}", plan.twice());
        let at_once = plan.order.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!((150..350).contains(&at_once), "{at_once} of {} are sent twice at once", plan.twice());
    }

    #[test]
    fn some_calls_are_told_of_in_a_wrong_order() {
        let plan = plan(5_000);
        let first = |call: usize, what: What| {
            plan.order.iter().position(|event| plan.events[*event] == Event { call, what }).expect("it is sent")
        };
        let calls: Vec<usize> = (0..plan.calls.len()).filter(|call| plan.calls[*call].story == Story::Vapi).collect();
        let backwards = |early, late| calls.iter().filter(|call| first(**call, early) > first(**call, late)).count();
        assert!(backwards(What::InProgress, What::Ended) > 10, "the end before the beginning");
        assert!(backwards(What::Ended, What::Report) > 20, "the report before the end");
        assert!(backwards(What::Ended, What::Report) < calls.len() / 2, "most are told of as they happen");
    }

    #[test]
    fn the_origin_breaks_five_times_and_postgres_once() {
        let plan = plan(1_000);
        let of = |broken| plan.faults.iter().filter(|fault| fault.broken == broken).count();
        assert_eq!((of(Broken::Origin), of(Broken::Postgres)), (5, 1));
        assert!(plan.faults.windows(2).all(|pair| pair[0].after + 100 < pair[1].after), "{:?}", plan.faults);
        assert!(plan.faults[5].after + 100 < plan.order.len(), "the last is followed by more events");
    }

    #[test]
    fn no_two_events_have_one_delivery_id() {
        let plan = plan(1_000);
        let parties = Parties {
            account_sid: "AC1".to_owned(),
            assistant_id: "a1".to_owned(),
            number: "+15550100001".to_owned(),
            switched_number: "+15550100002".to_owned(),
        };
        let ids: BTreeSet<String> = plan
            .events
            .iter()
            .map(|event| Wire::new(&parties, &plan.calls[event.call], event.what).delivery())
            .collect();
        assert_eq!(ids.len(), plan.events.len());
    }

    #[test]
    fn a_seed_gives_one_plan() {
        assert_eq!(plan(500).order, plan(500).order);
        assert_eq!(plan(500).calls[7].sid, plan(500).calls[7].sid);
    }
}
