//! A rollback gives numbers at Twilio exactly what they had before the rollout, whatever our record held or holds.

use tests::twilio::Number;

use crate::fleet::{Fleet, number};
use crate::harness::eventually;

impl Fleet {
    /// Switches all agents with a rollout of its own, and gives that.
    async fn all_to(&self, system: &str) -> String {
        let id = self.plan(&["--percent", "100", "--guard", "off", "--to", system]).await;
        self.run(&["start", &id, "--yes"]).await;
        id
    }

    async fn back(&self, id: &str) {
        let ran = self.run(&["rollback", id, "--yes"]).await;
        assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
    }

    /// The owner changes a number that goes straight to Vapi, at Twilio; Tandem does not notice.
    fn owner_changes(&self, which: u32, fallback: &str) {
        let changed = self.twilio().number(&number(1, which)).expect("it is there").fallback_url(fallback);
        self.twilio().set_number(changed);
    }

    /// A person says that what somebody else has set gives way.
    async fn overwrite(&self, which: u32) {
        let point = ["numbers", "point", &number(1, which), "--project", "Fleet", "--overwrite"];
        let ran = self.tandem(&point).await;
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let settled = format!(
            "from pointings p join phone_numbers n on n.id = p.number_id where p.state = 'settled' and n.number = '{}'",
            number(1, which)
        );
        eventually("it is settled", async || (self.count(&settled).await == 1).then_some(())).await;
    }

    async fn remembers(&self, which: u32, fallback: &str) -> bool {
        let with = format!(
            "from pointings p join phone_numbers n on n.id = p.number_id
             where n.number = '{}' and p.remembered ->> 'voiceFallbackUrl' = '{fallback}'",
            number(1, which)
        );
        self.count(&with).await == 1
    }
}

#[tokio::test]
async fn before_the_rollout_counts_not_what_is_remembered_since() {
    for by_hand in [false, true] {
        let fleet = Fleet::at_twilio(1).await;
        let _origin = fleet.origin().await;
        let before = fleet.at_twilio_now().await;
        let id = fleet.all_to("openai-realtime").await;
        // There and back, with other settings at Vapi in between.
        fleet.all_to("vapi").await;
        assert_eq!(fleet.at_twilio_now().await, before);
        fleet.owner_changes(1, "https://own.test/newer");
        let newer = fleet.at_twilio_now().await;
        fleet.all_to("openai-realtime").await;
        fleet.overwrite(1).await;
        assert!(fleet.remembers(1, "https://own.test/newer").await);
        if by_hand {
            // Then the rollback finds its agents switched back, but not to what was before.
            fleet.all_to("vapi").await;
            assert_eq!(fleet.at_twilio_now().await, newer);
        }

        fleet.back(&id).await;

        assert_eq!(fleet.at_twilio_now().await, before, "by hand: {by_hand}");
    }
}

#[tokio::test]
async fn what_only_twilio_knew_before_the_rollout_comes_back() {
    let fleet = Fleet::at_twilio(1).await;
    let _origin = fleet.origin().await;
    let id = fleet.all_to("openai-realtime").await;
    fleet.back(&id).await;
    fleet.owner_changes(1, "https://own.test/newer");
    fleet.owner_changes(2, "https://own.test/newest");
    let before = fleet.at_twilio_now().await;
    assert!(!fleet.remembers(1, "https://own.test/newer").await);

    let id = fleet.all_to("openai-realtime").await;
    let told = fleet.run(&["status", &id]).await;
    assert_eq!(told.code, 1);
    assert!(told.stdout.contains("2 numbers left alone at Twilio: conflict:"), "{}", told.stdout);
    // One gives way, one is left as it is.
    fleet.overwrite(1).await;
    fleet.back(&id).await;

    assert_eq!(fleet.at_twilio_now().await, before);
}

#[tokio::test]
async fn a_number_that_twilio_was_never_asked_about_is_left_as_it_is() {
    let fleet = Fleet::at_twilio(1).await;
    let _origin = fleet.origin().await;
    let id = fleet.all_to("openai-realtime").await;
    fleet.back(&id).await;
    fleet.owner_changes(1, "https://own.test/newer");
    let before = fleet.at_twilio_now().await;
    let lost: Number = fleet.twilio().number(&number(1, 1)).expect("it is there");
    fleet.twilio().remove_number(&number(1, 1));
    let id = fleet.all_to("openai-realtime").await;
    fleet.twilio().set_number(lost);

    let dry = fleet.run(&["rollback", &id, "--dry-run", "--json"]).await.json();
    assert_eq!(dry["changes"]["back"][0]["atTwilio"][0]["change"], "unchanged");
    fleet.back(&id).await;

    assert_eq!(fleet.at_twilio_now().await, before);
}
