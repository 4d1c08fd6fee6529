//! Verifying the audit log: was anything lost, edited, put in or moved?
//!
//! What this can prove. Each event's hash covers the event and the hash before it, and a head says how many there are
//! and what the last hash is. Whoever changes rows without making all later hashes and the head anew is found out.
//! Whoever may do anything in the database can make them anew: against that, keep heads elsewhere (the answer of
//! `tandem events verify --json`) and hold the log against them with `--against`. Then nothing up to that head can have
//! changed. What was never logged, no chain can tell.

use serde::{Deserialize, Serialize};
use shared::ProjectId;
use sqlx::{Connection as _, PgConnection};

use crate::store::StoreError;
use crate::store::events::chain::{self, EventHash, Head, Link};
use crate::store::projects::{self, Project};

/// Events read at a time: a few megabytes at most in memory.
const PAGE: i64 = 1_000;
/// Faults of a project that are told one by one; the rest are counted.
const MAX_FAULTS: usize = 1_000;

/// Something that is wrong with a project's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// The event does not say what was hashed, or has no hash.
    Edited {
        /// Its place.
        position: i64,
        /// Its id.
        event_id: i64,
    },
    /// It does not follow on the event that is before it now.
    Unlinked {
        /// Its place.
        position: i64,
        /// Its id.
        event_id: i64,
    },
    /// Events are gone, from this place to that.
    Missing {
        /// The first place.
        from: i64,
        /// The last one.
        to: i64,
    },
    /// A place that is taken twice.
    Doubled {
        /// The place.
        position: i64,
        /// The second event.
        event_id: i64,
    },
    /// It was put in past the chain: it has no place, or one behind the head.
    Inserted {
        /// Its id.
        event_id: i64,
    },
    /// The head is not the last event's, or is gone.
    WrongHead,
    /// The log is not the one that an earlier head was taken of.
    NotAsBefore {
        /// That head's count.
        count: i64,
    },
}

/// What became of a project's log.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The project.
    pub project_id: ProjectId,
    /// Its name.
    pub project: String,
    /// Where the chain ends. Kept elsewhere, it proves later that the log up to here is the same.
    pub head: Head,
    /// What is wrong, in the order of the chain.
    pub faults: Vec<Fault>,
    /// Faults beyond those that are told.
    pub more_faults: u64,
}

impl Verdict {
    /// Whether nothing was lost or edited.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A head that somebody kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptHead {
    /// Whose it is.
    pub project_id: ProjectId,
    /// The head.
    pub head: Head,
}

/// Goes along a chain, link by link, and notes what is wrong. Holds nothing of the links.
#[derive(Debug)]
struct Walk {
    /// What the chain looked like at the last link.
    at: Head,
    /// What the head says.
    head: Head,
    /// A head from before, until it was passed.
    kept: Option<Head>,
    faults: Vec<Fault>,
    more: u64,
}

impl Walk {
    fn new(head: Option<Head>, kept: Option<Head>) -> Self {
        let mut walk = Self { at: Head::START, head: head.unwrap_or(Head::START), kept, faults: Vec::new(), more: 0 };
        walk.hold_against_kept();
        walk
    }

    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        } else {
            self.more += 1;
        }
    }

    /// The next link, in the order of places.
    fn pass(&mut self, link: &Link) {
        let &Link { id: event_id, position, .. } = link;
        if position > self.head.count {
            return self.fault(Fault::Inserted { event_id });
        }
        if position <= self.at.count {
            return self.fault(Fault::Doubled { position, event_id });
        }
        let gap = position > self.at.count + 1;
        if gap {
            self.missing(position - 1);
        }
        let recomputed = EventHash::of(link.previous.unwrap_or(EventHash::START), &link.fields);
        if link.previous.is_none() || link.hash != Some(recomputed) {
            self.fault(Fault::Edited { position, event_id });
        } else if !gap && link.previous != Some(self.at.hash) {
            // After a gap there is nothing to hold it against.
            self.fault(Fault::Unlinked { position, event_id });
        }
        // What the link says: so that one edit is one fault.
        self.at = Head { count: position, hash: link.hash.unwrap_or(recomputed) };
        self.hold_against_kept();
    }

    fn missing(&mut self, to: i64) {
        self.fault(Fault::Missing { from: self.at.count + 1, to });
    }

    fn hold_against_kept(&mut self) {
        if let Some(kept) = self.kept.take_if(|kept| kept.count <= self.at.count)
            && kept != self.at
        {
            self.fault(Fault::NotAsBefore { count: kept.count });
        }
    }

    fn unchained(&mut self, event_id: i64) {
        self.fault(Fault::Inserted { event_id });
    }

    fn finish(mut self) -> (Vec<Fault>, u64) {
        if self.at.count < self.head.count {
            self.missing(self.head.count);
        } else if self.at != self.head {
            self.fault(Fault::WrongHead);
        }
        if let Some(kept) = self.kept {
            self.fault(Fault::NotAsBefore { count: kept.count });
        }
        (self.faults, self.more)
    }
}

/// Verifies the logs of one project or of all. Each is read as it was at one moment; nobody waits for it.
pub async fn verify(
    conn: &mut PgConnection,
    project: Option<ProjectId>,
    kept: &[KeptHead],
) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = Vec::new();
    for Project { id, name, .. } in projects::all(conn).await? {
        if project.is_none_or(|project| project == id) {
            let kept = kept.iter().find(|kept| kept.project_id == id).map(|kept| kept.head);
            verdicts.push(verify_project(conn, id, name, kept).await?);
        }
    }
    for lost in kept.iter().filter(|kept| project.is_none_or(|project| project == kept.project_id)) {
        if verdicts.iter().all(|verdict| verdict.project_id != lost.project_id) {
            let KeptHead { project_id, head } = *lost;
            let faults = vec![Fault::NotAsBefore { count: head.count }];
            verdicts.push(Verdict { project_id, project: "(gone)".to_owned(), head, faults, more_faults: 0 });
        }
    }
    Ok(verdicts)
}

async fn verify_project(
    conn: &mut PgConnection,
    project: ProjectId,
    name: String,
    kept: Option<Head>,
) -> Result<Verdict, StoreError> {
    let mut tx = conn.begin_with("begin isolation level repeatable read read only").await?;
    let head = chain::head(&mut tx, project).await?;
    let mut walk = Walk::new(head, kept);
    let mut after = (i64::MIN, i64::MIN);
    loop {
        let links = chain::links(&mut tx, project, after, PAGE).await?;
        let Some(last) = links.last() else { break };
        after = (last.position, last.id);
        for link in &links {
            walk.pass(link);
        }
    }
    for id in chain::unchained(&mut tx, project, PAGE).await? {
        walk.unchained(id);
    }
    tx.rollback().await?;
    let head = walk.head;
    let (faults, more_faults) = walk.finish();
    Ok(Verdict { project_id: project, project: name, head, faults, more_faults })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(at: &Head, words: &str) -> (Head, Link) {
        let position = at.count + 1;
        let fields = vec![Some(position.to_string()), Some(words.to_owned()), None];
        let hash = EventHash::of(at.hash, &fields);
        let link = Link { id: position * 10, position, previous: Some(at.hash), hash: Some(hash), fields };
        (Head { count: position, hash }, link)
    }

    /// A chain of four events, and the heads after each.
    fn chain() -> (Vec<Link>, Vec<Head>) {
        let mut heads = vec![Head::START];
        let links = ["one", "two", "three", "four"].map(|words| {
            let (head, link) = link(&heads[heads.len() - 1], words);
            heads.push(head);
            link
        });
        (links.to_vec(), heads)
    }

    fn faults(head: Option<Head>, kept: Option<Head>, links: &[Link]) -> Vec<Fault> {
        let mut walk = Walk::new(head, kept);
        for link in links {
            walk.pass(link);
        }
        walk.finish().0
    }

    #[test]
    fn a_sound_chain_has_no_fault_with_any_of_its_heads() {
        let (links, heads) = chain();
        for kept in &heads {
            assert_eq!(faults(Some(heads[4]), Some(*kept), &links), []);
        }
        assert_eq!(faults(None, None, &[]), []);
    }

    #[test]
    fn an_edit_is_one_fault() {
        let (mut links, heads) = chain();
        links[1].fields[1] = Some("2".to_owned());
        assert_eq!(faults(Some(heads[4]), None, &links), [Fault::Edited { position: 2, event_id: 20 }]);
    }

    #[test]
    fn an_edit_with_a_new_hash_breaks_the_next_link() {
        let (mut links, heads) = chain();
        links[1] = link(&heads[1], "other").1;
        assert_eq!(faults(Some(heads[4]), None, &links), [Fault::Unlinked { position: 3, event_id: 30 }]);
    }

    #[test]
    fn what_was_taken_out_is_missing() {
        let (mut links, heads) = chain();
        links.drain(1..3);
        assert_eq!(faults(Some(heads[4]), None, &links), [Fault::Missing { from: 2, to: 3 }]);
        let (links, heads) = chain();
        assert_eq!(faults(Some(heads[4]), None, &links[..2]), [Fault::Missing { from: 3, to: 4 }]);
        assert_eq!(faults(Some(heads[4]), None, &[]), [Fault::Missing { from: 1, to: 4 }]);
    }

    #[test]
    fn two_events_that_changed_places_are_edited() {
        let (mut links, heads) = chain();
        links.swap(1, 2);
        for (link, position) in links.iter_mut().zip(1..) {
            link.position = position;
            link.fields[0] = Some(position.to_string());
        }
        let expected = [Fault::Edited { position: 2, event_id: 30 }, Fault::Edited { position: 3, event_id: 20 }];
        // The fourth followed on the third, which still has its hash but is the second now.
        let found = faults(Some(heads[4]), None, &links);
        assert_eq!(found[..2], expected);
        assert_eq!(found[2], Fault::Unlinked { position: 4, event_id: 40 });
    }

    #[test]
    fn what_was_put_in_is_told() {
        let (mut links, heads) = chain();
        let (_, fifth) = link(&heads[4], "five");
        links.push(fifth);
        assert_eq!(faults(Some(heads[4]), None, &links), [Fault::Inserted { event_id: 50 }]);
        links.insert(1, Link { id: 11, ..links[0].clone() });
        assert_eq!(
            faults(Some(heads[4]), None, &links),
            [Fault::Doubled { position: 1, event_id: 11 }, Fault::Inserted { event_id: 50 }]
        );
    }

    #[test]
    fn a_head_that_is_not_the_last_events_is_wrong() {
        let (links, heads) = chain();
        let wrong = Head { hash: heads[3].hash, ..heads[4] };
        assert_eq!(faults(Some(wrong), None, &links), [Fault::WrongHead]);
        let ids = links.iter().map(|link| Fault::Inserted { event_id: link.id });
        assert_eq!(faults(None, None, &links), ids.collect::<Vec<_>>(), "without a head nothing is in the chain");
    }

    #[test]
    fn a_chain_that_was_made_anew_differs_from_its_old_heads() {
        let (_, heads) = chain();
        let mut anew = vec![heads[1]];
        let mut links = vec![chain().0[0].clone()];
        for words in ["other", "three"] {
            let (head, link) = link(&anew[anew.len() - 1], words);
            anew.push(head);
            links.push(link);
        }
        let head = anew[2];
        assert_eq!(faults(Some(head), None, &links), []);
        assert_eq!(faults(Some(head), Some(heads[1]), &links), []);
        for kept in &heads[2..] {
            assert_eq!(faults(Some(head), Some(*kept), &links), [Fault::NotAsBefore { count: kept.count }]);
        }
    }

    #[test]
    fn faults_are_told_up_to_a_limit_and_counted_beyond() {
        let mut walk = Walk::new(None, None);
        for id in 0..1_005 {
            walk.unchained(id);
        }
        let (faults, more) = walk.finish();
        assert_eq!((faults.len(), more), (MAX_FAULTS, 5));
    }
}
