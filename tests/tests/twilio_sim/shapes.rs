//! Twilio's own SDKs accept what the simulator signs, and read what its REST API answers.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::twilio::{Caller, Twilio};

use super::our_side::{ACCOUNT, Answer, BASE, OurSide, Received, Socket, TOKEN, number, whole_call};

/// A request as a line for the scripts.
fn line(request: &Received, scheme: &str) -> Value {
    json!({
        "authToken": TOKEN,
        "url": format!("{scheme}://edge.tandem.test{}", request.target),
        "params": if request.method == "POST" { request.params() } else { Vec::new() },
        "signature": request.header("x-twilio-signature"),
    })
}

/// Requests of every kind, made by real calls, as lines.
async fn signed_requests() -> String {
    let our_side = OurSide::streaming(|mut socket: Socket| async move {
        socket.next_of("media").await;
    })
    .await;
    our_side.answer(
        "/voice",
        [Answer::twiml(
            "<Connect><Stream url=\"wss://edge.tandem.test/media\" statusCallback=\"https://edge.tandem.test/stream-status\"/></Connect>\
         <Redirect method=\"GET\">/got?tenant=a%20b</Redirect>",
        )],
    );
    our_side.answer("/got", [Answer::twiml("<Hangup/>")]);
    let twilio = our_side.twilio().await;
    twilio.set_number(number().voice_url(&format!("{BASE}/voice?x=1&y=%C3%A9#rc=2")));
    whole_call(&twilio, Caller::new()).await;
    let mut lines = Vec::new();
    for (path, scheme) in
        [("/voice", "https"), ("/got", "https"), ("/status", "https"), ("/stream-status", "https"), ("/media", "wss")]
    {
        let requests = our_side.received(path);
        assert!(!requests.is_empty(), "{path} was requested");
        lines.extend(requests.iter().map(|request| line(request, scheme).to_string()));
    }
    lines.join("\n")
}

/// A file of these lines that is gone when dropped.
struct Lines(std::path::PathBuf);

impl Lines {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("twilio-lines-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).expect("the temporary folder takes files");
        Self(path)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs `tests/shapes/<script>` under node; the error holds its complaints.
fn node(script: &str, arguments: &[&str]) -> Result<(), String> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(crate_folder.join("../node_modules/twilio").exists(), "npm's twilio is missing: `make setup` installs it");
    let output = Command::new("node")
        .arg(crate_folder.join("shapes").join(script))
        .args(arguments)
        .output()
        .expect("node is installed");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic")
}

#[tokio::test]
async fn the_node_sdk_accepts_every_signature_and_refuses_a_changed_one() {
    let lines = signed_requests().await;
    let changed = lines.replacen("\"CallStatus\",\"ringing\"", "\"CallStatus\",\"busy\"", 1);
    assert_ne!(lines, changed);
    blocking(move || {
        let (lines, changed) = (Lines::new(&lines), Lines::new(&changed));
        node("twilio_signatures.cjs", &[&lines.0.to_string_lossy()]).expect("every signature is good");
        assert!(node("twilio_signatures.cjs", &[&changed.0.to_string_lossy()]).is_err());
    })
    .await;
}

#[tokio::test]
async fn the_python_sdk_accepts_every_signature_and_refuses_a_changed_one() {
    let lines = signed_requests().await;
    let changed = lines.replacen("\"CallStatus\",\"ringing\"", "\"CallStatus\",\"busy\"", 1);
    blocking(move || {
        let (lines, changed) = (Lines::new(&lines), Lines::new(&changed));
        tests::shapes::validate("twilio_signatures", &lines.0).expect("every signature is good");
        assert!(tests::shapes::validate("twilio_signatures", &changed.0).is_err());
    })
    .await;
}

#[tokio::test]
async fn the_node_sdk_uses_the_rest_api() {
    let our_side = OurSide::start().await;
    our_side.answer("/voice", [Answer::twiml("<Say loop=\"0\">Hold.</Say>")]);
    let twilio: Twilio = our_side.twilio().await;
    let url = twilio.api_url();
    blocking(move || node("twilio_rest.cjs", &[&url, ACCOUNT, TOKEN])).await.expect("the SDK is content");
}
