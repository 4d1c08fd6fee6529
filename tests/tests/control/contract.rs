//! The API against its own description: schemathesis sends what the description allows and what it forbids, and looks
//! at every answer. Its summary is kept in `target/contract/summary.txt`.
//!
//! Twilio and Vapi are simulated, and there is something to read, change and delete for every operation, so that it is
//! not always the same 404 which is looked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tests::python;
use tests::twilio::Number;

use crate::operations::{Operation, operations, prepare};
use crate::pointing::World;

/// How many things there are to be read by each operation, and to be changed or deleted.
const TO_READ: usize = 2;
const TO_CHANGE: usize = 12;
/// Not all: what does not exist is an answer, too.
const MOSTLY: f64 = 0.9;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_as_its_description_says() {
    let world = World::with(vec![("API_REQUESTS_PER_SECOND", "60000".to_owned())]).await;
    let data = test_data(&offers(&world).await);
    let (url, key) = (world.origin.url("/api/openapi.json"), world.origin.key.clone());
    let said = tokio::task::spawn_blocking(move || run(&url, &key, &data)).await.expect("no panic").expect("it holds");
    println!("{said}");
}

/// What each operation's parameters may be: names of what there is.
type Offers = BTreeMap<String, Vec<(&'static str, Vec<String>)>>;

async fn offers(world: &World) -> Offers {
    let mut offers = Offers::new();
    let mut offer = |operation: &str, parameter, values: &[String]| {
        offers.entry(operation.to_owned()).or_default().push((parameter, values.to_vec()));
    };
    for operation in operations().iter().filter(|operation| operation.has_id()) {
        let calls = calls(world, operation).await;
        let ids = calls.iter().filter_map(|path| path.split(['/', '?']).find(|part| part.len() == 36));
        offer(&operation.id, "path.id", &ids.map(str::to_owned).collect::<Vec<_>>());
        let confirm = calls.iter().filter_map(|path| path.split_once("confirm=%2B"));
        let confirm: Vec<String> = confirm.map(|(_, digits)| format!("+{digits}")).collect();
        if !confirm.is_empty() {
            offer(&operation.id, "query.confirm", &confirm);
        }
    }
    let agents = [world.origin.reception.to_string(), world.origin.night_line.to_string()];
    for rollout in ["planRollout", "createRollout"] {
        offer(rollout, "body.agentIds[*]", &agents);
    }
    for operation in ["buyNumber", "adoptNumber", "assignNumber"] {
        offer(operation, "body.agentId", &agents);
    }
    let own: Vec<String> = (0..TO_CHANGE).map(|at| format!("+1555{:07}", 4_000_000 + at)).collect();
    for number in &own {
        world.twilio.set_number(Number::new(number).voice_url("https://own.test/voice"));
    }
    offer("adoptNumber", "body.number", &own);
    let for_sale = world.origin.get(&world.origin.key, "/api/numbers/available").await.body;
    let for_sale = for_sale["items"].as_array().expect("numbers").iter().filter_map(|offer| offer["number"].as_str());
    offer("buyNumber", "body.number", &for_sale.map(str::to_owned).collect::<Vec<_>>());
    offer("explainRoute", "query.to", &["+15550100001".to_owned(), "+15550100002".to_owned()]);
    offers
}

/// The same in the words of schemathesis' configuration.
fn test_data(offers: &Offers) -> String {
    let mut data = String::new();
    for (operation, parameters) in offers {
        let mut bindings = Vec::new();
        for (at, (parameter, values)) in parameters.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(data, "\n[dictionaries.{operation}-{at}]\nvalues = {}\n", json!(values));
            let binding = format!("{{ dictionary = \"{operation}-{at}\", probability = {MOSTLY} }}");
            bindings.push(format!("{parameter:?} = {binding}"));
        }
        let _ = write!(data, "\n[[operations]]\ninclude-operation-id = {operation:?}\n");
        let _ = writeln!(data, "parameters = {{ {} }}", bindings.join(", "));
    }
    data
}

/// Paths that an operation may be called at, each about something else.
async fn calls(world: &World, operation: &Operation) -> Vec<String> {
    let count = match operation.id.as_str() {
        // Each wants a confirmation of its own: of few, the right one is met.
        "releaseNumber" => TO_READ,
        _ if operation.is_write() => TO_CHANGE,
        _ => TO_READ,
    };
    let mut paths = Vec::new();
    for _ in 0..count {
        paths.push(prepare(world, operation).await.path);
    }
    paths
}

fn run(url: &str, key: &str, data: &str) -> anyhow::Result<String> {
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
    let python = python::with("contract", &contract.join("requirements.txt"))?;
    let config = configuration(&contract, data)?;
    let mut schemathesis = Command::new(python.with_file_name("schemathesis"));
    schemathesis.arg("--config-file").arg(&config);
    schemathesis.args(["run", url, "--header", &format!("Authorization: Bearer {key}")]);
    // The same cases in every run: a new finding comes of a change.
    schemathesis.args(["--max-examples", "10", "--seed", "1", "--no-color"]);
    schemathesis.current_dir(python::target().join("contract"));
    let said = python::run(schemathesis, "the API does not do as its description says")?;
    let from = said.find("SUMMARY").map_or(0, |at| said[..at].rfind('\n').unwrap_or(0));
    std::fs::write(python::target().join("contract/summary.txt"), &said[from..])?;
    Ok(said[from..].to_owned())
}

/// The configuration that is checked in, and the test data behind it.
fn configuration(contract: &Path, data: &str) -> anyhow::Result<PathBuf> {
    let fixed = std::fs::read_to_string(contract.join("schemathesis.toml"))?;
    let whole = python::target().join("contract/schemathesis.toml");
    std::fs::write(&whole, format!("{fixed}\n{data}"))?;
    Ok(whole)
}
