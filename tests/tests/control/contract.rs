//! The API against its own description: schemathesis sends what the description allows and what it forbids, and looks
//! at every answer. Its summary is kept in `target/contract/summary.txt`.

use std::path::Path;
use std::process::Command;

use tests::python;

use crate::harness::Origin;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_as_its_description_says() {
    let origin = Origin::with(vec![("API_REQUESTS_PER_SECOND", "60000".to_owned())]).await;
    let (url, key) = (origin.url("/api/openapi.json"), origin.key.clone());
    let said = tokio::task::spawn_blocking(move || run(&url, &key)).await.expect("no panic").expect("it holds");
    println!("{said}");
}

fn run(url: &str, key: &str) -> anyhow::Result<String> {
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
    let python = python::with("contract", &contract.join("requirements.txt"))?;
    let mut schemathesis = Command::new(python.with_file_name("schemathesis"));
    schemathesis.arg("--config-file").arg(contract.join("schemathesis.toml"));
    schemathesis.args(["run", url, "--header", &format!("Authorization: Bearer {key}")]);
    // The same cases in every run: a new finding comes of a change.
    schemathesis.args(["--max-examples", "10", "--seed", "1", "--no-color"]);
    schemathesis.current_dir(python::target().join("contract"));
    let said = python::run(schemathesis, "the API does not do as its description says")?;
    let from = said.find("SUMMARY").map_or(0, |at| said[..at].rfind('\n').unwrap_or(0));
    std::fs::write(python::target().join("contract/summary.txt"), &said[from..])?;
    Ok(said[from..].to_owned())
}
