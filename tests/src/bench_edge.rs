//! `sim bench-edge`: what the compiled Worker costs beside the same Worker in hand-written JavaScript, without a framework
//! and with Hono.
//!
//! Each runs in a workerd of its own, with the replica and the origin as scripts in the same process, the same for all.
//! They are loaded in turn, round by round, so that whatever else the machine does falls on all alike. Counted is the
//! processor time of the whole process.

pub(crate) mod load;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use shared::hmac::{Algorithm, mac};

use self::load::{Measured, answer, measure};
use crate::stack::workerd::{Binding, Service, Workerd, WorkerdOptions};
use crate::stack::{edge, root};

const ROUNDS: usize = 21;
/// How long one Worker is loaded in one round.
const ROUND: Duration = Duration::from_secs(1);
/// Before the first round, until the compilers in workerd have done their work.
const WARM_UP: Duration = Duration::from_secs(3);

const PUBLIC: &str = "https://edge.tandem.test";
const TWILIO_TOKEN: &str = "0123456789abcdef0123456789abcdef";
const VAPI_SECRET: &str = "vapi-secret";

const PEERS: [(&str, &str); 3] =
    [("JavaScript", "tests/bench/plain.js"), ("Hono", "tests/bench/hono.js"), ("this Worker", "edge/src/entry.js")];

/// A webhook that is sent over and over.
struct Webhook {
    name: &'static str,
    request: Vec<u8>,
    forged: Vec<u8>,
    refusal: u16,
    /// What every answer holds.
    expected: &'static str,
}

/// Measures and prints.
pub async fn run() -> anyhow::Result<()> {
    ensure!(PathBuf::from("/proc/self/schedstat").exists(), "processor time is read from /proc, which only Linux has");
    edge::build().await?;
    let mut peers = Vec::new();
    for (name, entry) in PEERS {
        peers.push((name, Workerd::start(&options(root().join(entry))).await?));
    }
    for webhook in [voice(), event()] {
        for (name, peer) in &peers {
            let good = answer(peer.port(), &webhook.request)?;
            ensure!(
                good.0 == 200 && good.1.contains(webhook.expected),
                "{name} answers {good:?}:\n{}",
                peer.log_tail()
            );
            let forged = answer(peer.port(), &webhook.forged)?;
            ensure!(forged.0 == webhook.refusal, "{name} answers a forged one {forged:?}");
            measure(peer, &webhook.request, WARM_UP)?;
        }
        let mut rounds = vec![Vec::with_capacity(ROUNDS); peers.len()];
        for round in 0..ROUNDS {
            // Another one begins each time.
            for at in (0..peers.len()).map(|at| (at + round) % peers.len()) {
                if let (Some((_, peer)), Some(measured)) = (peers.get(at), rounds.get_mut(at)) {
                    measured.push(measure(peer, &webhook.request, ROUND)?);
                }
            }
        }
        print(&webhook, &rounds);
    }
    Ok(())
}

fn print(webhook: &Webhook, rounds: &[Vec<Measured>]) {
    println!(
        "\n{} ({} connections, median of {ROUNDS} rounds of {} s each):",
        webhook.name,
        load::CONNECTIONS,
        ROUND.as_secs()
    );
    let [plain, hono, ..] = rounds else { return };
    for ((name, _), own) in PEERS.iter().zip(rounds) {
        let ratio = |peer: &[Measured]| median(own.iter().zip(peer).map(|(own, peer)| own.cpu_us / peer.cpu_us));
        println!(
            "  {name:<12} {:>6.0} requests/s  {:>5.0} µs of processor each  {:.2} × JavaScript  {:.2} × Hono",
            median(own.iter().map(|measured| measured.per_second)),
            median(own.iter().map(|measured| measured.cpu_us)),
            ratio(plain),
            ratio(hono),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn options(entry: PathBuf) -> WorkerdOptions {
    let text = |value: &str| Binding::Text(value.to_owned());
    let script = |name: &str| Service::Script(root().join("tests/bench").join(name));
    WorkerdOptions {
        entry,
        bindings: vec![
            ("ORIGIN_URL", text("https://origin.tandem.test")),
            ("MEDIA_URL", text("wss://origin.tandem.test/media-stream")),
            ("EDGE_URL", text(PUBLIC)),
            ("TWILIO_AUTH_TOKEN", text(TWILIO_TOKEN)),
            ("VAPI_SERVER_SECRET", text(VAPI_SECRET)),
            ("EDGE_ORIGIN_SECRET", text("hop-secret")),
            ("ROUTES", Binding::Kv("kv")),
            ("RETRIES", Binding::Queue("origin")),
        ],
        services: vec![("kv", script("kv.js")), ("origin", script("origin.js"))],
        outbound: Some("origin"),
    }
}

/// An incoming call with the parameters of a real one.
fn voice() -> Webhook {
    let params = [
        ("AccountSid", "ACb0cdeb0d2b2a4a3f9d6c2a8d3f6b7e10"),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", "CA7b1f0a52c3de4f6a8b9c0d1e2f3a4b5c"),
        ("CallStatus", "ringing"),
        (
            "CallToken",
            "%7B%22parentCallInfoToken%22%3A%22eyJhbGciOiJFUzI1NiJ9.eyJjYWxsU2lkIjoiQ0E3YjFmMGE1MiJ9.c2ln%22%7D",
        ),
        ("Called", "+15550100002"),
        ("CalledCity", ""),
        ("CalledCountry", "US"),
        ("CalledState", "CA"),
        ("CalledZip", ""),
        ("Caller", "+15550100199"),
        ("CallerCity", "SAN FRANCISCO"),
        ("CallerCountry", "US"),
        ("CallerState", "CA"),
        ("CallerZip", "94105"),
        ("Direction", "inbound"),
        ("From", "+15550100199"),
        ("FromCity", "SAN FRANCISCO"),
        ("FromCountry", "US"),
        ("FromState", "CA"),
        ("FromZip", "94105"),
        ("StirVerstat", "TN-Validation-Passed-A"),
        ("To", "+15550100002"),
        ("ToCity", ""),
        ("ToCountry", "US"),
        ("ToState", "CA"),
        ("ToZip", ""),
    ];
    // They are in order already.
    let signed: String = params.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let signature = |token: &str| {
        let text = format!("{PUBLIC}/twilio/voice{signed}");
        BASE64_STANDARD.encode(mac(Algorithm::Sha1, token.as_bytes(), &[text.as_bytes()]))
    };
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
    let request = |token: &str| {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=UTF-8"),
            ("x-twilio-signature", &signature(token)),
            ("i-twilio-idempotency-token", "0b2e7a8e-6d3c-4f15-9a50-3f2a5f6d7c81"),
            ("user-agent", "TwilioProxy/1.1"),
            ("accept", "*/*"),
        ];
        load::request("/twilio/voice", &headers, body.as_bytes())
    };
    Webhook {
        name: "A bridged call, answered by the edge alone",
        request: request(TWILIO_TOKEN),
        forged: request("another"),
        refusal: 403,
        expected: "<Parameter name=\"token\" value=\"v1.CA7b1f0a52c3de4f6a8b9c0d1e2f3a4b5c.",
    }
}

/// An event of the length that they have some minutes into a call.
fn event() -> Webhook {
    let turn = |at: usize| {
        let (role, text) = if at.is_multiple_of(2) {
            ("bot", "Our next free slot is on Thursday at half past two in the afternoon. Does that suit you?")
        } else {
            ("user", "Rather later, please, I am at work until five and then I have to fetch the children.")
        };
        json!({"role": role, "message": text, "time": 1_795_359_607_400_u64 + at as u64 * 3_000,
            "endTime": 1_795_359_609_900_u64 + at as u64 * 3_000, "secondsFromStart": at * 3, "duration": 2_500})
    };
    let turns: Vec<_> = (0..48).map(turn).collect();
    let message = json!({"message": {
        "type": "conversation-update", "timestamp": 1_795_359_607_400_u64, "messages": turns,
        "call": {"id": "7ed33bde-1c5d-4a0e-9a0d-0f6d3a1b2c4d", "createdAt": "2026-11-22T14:59:58.000Z",
            "assistantId": "2224e7d7-90f1-4a1c-a5bf-d6a1f2c3b4e5", "type": "inboundPhoneCall",
            "phoneCallProviderId": "CA031b", "customer": {"number": "+15550100199"}},
        "phoneNumber": {"number": "+15550100001"}, "customer": {"number": "+15550100199"},
    }});
    let body = message.to_string();
    let request = |secret: &str| {
        let headers = [("content-type", "application/json"), ("x-vapi-secret", secret), ("accept", "*/*")];
        load::request("/api/vapi/webhook", &headers, body.as_bytes())
    };
    Webhook {
        name: "An event of Vapi's, forwarded to the origin",
        request: request(VAPI_SECRET),
        forged: request("another"),
        refusal: 401,
        expected: "{}",
    }
}
