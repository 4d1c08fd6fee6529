//! `sim dev`: the whole stack, up until Ctrl-C, and how to place a call on it.

use tokio::signal::unix::{SignalKind, signal};

use crate::openai::{RealtimeOptions, Reply};
use crate::speech::{clip, wav};
use crate::stack::root;
use crate::tandem::{Options, Tandem};

/// Keeps the stack up.
pub async fn run() -> anyhow::Result<()> {
    println!("Starting Postgres, the origin, the Worker in workerd and the simulated services.");
    let openai_api_key = std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty());
    let real = openai_api_key.is_some();
    let says = ["agent-greeting", "agent-hours", "agent-saturday", "agent-goodbye"];
    let openai =
        RealtimeOptions { replies: says.map(|name| Reply::speech(clip(name))).into(), ..RealtimeOptions::default() };
    // Ctrl-C means now, also for whoever is on the phone.
    let origin_env = vec![("DRAIN_TIMEOUT_SECONDS".to_owned(), "1".to_owned())];
    let options = Options { openai, openai_api_key, origin_env, clips: Some(find_clip), ..Options::default() };
    let mut tandem = Tandem::start(options).await?;
    print(&tandem, real);

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    println!("Stopping.");
    tandem.stop().await
}

fn print(tandem: &Tandem, real: bool) {
    let twilio = tandem.twilio.api_url();
    println!("\n  edge      {}", tandem.edge.base_url());
    println!("  origin    {}", tandem.origin.base_url());
    println!("  Postgres  {}", tandem.database_url);
    println!("  Twilio    {twilio} (simulated)");
    println!("  Vapi      {} (simulated)", tandem.vapi.api_url());
    let openai = if real { "the real service".to_owned() } else { format!("{} (simulated)", tandem.openai.url()) };
    println!("  OpenAI    {openai}");
    println!("  API key   {}\n", tandem.seeded.api_key);
    for agent in &tandem.seeded.agents {
        println!("  {} answers {} on {}, agent {}", agent.name, agent.number, agent.system_type, agent.id);
    }
    let Some(agent) = tandem.seeded.agents.first() else { return };
    println!("\nPlace a call; the caller speaks clips of tests/speech/, or any 8 kHz mono WAV:\n");
    println!("  curl {twilio}/sim/calls -H 'content-type: application/json' \\");
    println!("    -d '{{\"to\": \"{}\", \"say\": [\"caller-appointment\", \"caller-thanks\"]}}'", agent.number);
    println!("  curl {twilio}/sim/calls/SID        # what happened in it\n\nSwitch an agent:\n");
    println!("  curl -X PUT {}/api/agents/{}/system-type \\", tandem.origin.base_url(), agent.id);
    println!("    -H 'authorization: Bearer {}' \\", tandem.seeded.api_key);
    println!("    -H 'content-type: application/json' -d '{{\"systemType\": \"openai-realtime\"}}'\n\nCtrl-C ends it.");
}

/// A clip by its name, or a WAV file by its path.
fn find_clip(name: &str) -> Result<Vec<u8>, String> {
    let named = root().join("tests/speech").join(format!("{name}.wav"));
    let path = if named.is_file() { named } else { name.into() };
    wav::read_mulaw(path).map_err(|error| format!("{error:#}"))
}
