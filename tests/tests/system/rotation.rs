//! In the middle of replacing every secret: the origin has the new ones already, everybody else uses the old ones.

use serde_json::json;
use tests::openai::Session;
use tests::tandem::{AUTH_TOKEN, EDGE_ORIGIN_SECRET, EDGE_URL, ORIGIN_URL, Options, VAPI_SECRET};
use tests::twilio::{Caller, EndReason, Number};

use crate::audio::{self, CALLER};
use crate::world::{LIMIT, REALTIME, Spec, World, model};

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_are_good_while_one_replaces_the_other() {
    let both = |name: &str, old: &str| (name.to_owned(), format!("the-next-one,{old}"));
    let origin_env = vec![
        both("EDGE_ORIGIN_SECRET", EDGE_ORIGIN_SECRET),
        both("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
        both("VAPI_SERVER_SECRET", VAPI_SECRET),
    ];
    let world = World::start(Options { openai: model(), origin_env, ..Options::default() }).await;
    let [agent] = world.agents([Spec::listening()]).await;

    // The edge signs and mints with the old secret; the origin, whose voice webhook is the fallback, with the new one.
    for base in [EDGE_URL, ORIGIN_URL] {
        let number = Number::new(&agent.number).voice_url(&format!("{base}/twilio/voice"));
        world.tandem.twilio.set_number(number.status_callback(&format!("{base}/twilio/status")));
        let before = world.sessions(&agent).len();
        let call =
            world.call(&agent, Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)).wait_until_agent_quiet());
        let session = world.session(&agent, before).await;
        let answered = |session: &Session| !session.record().responses.is_empty();
        session.wait_for(answered, LIMIT).await.expect("the caller is answered");
        call.then(Caller::new().hang_up());
        let record = world.over(&call, EndReason::CallerHungUp).await;
        assert_eq!((&record["systemType"], &record["resumes"]), (&json!(REALTIME), &json!(0)), "{base}");
    }
}
