//! The Worker's configuration as it is deployed, or changed for a test. The Worker itself is the same in each.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::super::root;
use super::super::scratch::Scratch;

/// How the Worker's configuration differs from the deployed one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Variant {
    /// Not at all.
    AsDeployed,
    /// Its queues give a message up after so many retries.
    Impatient { max_retries: u32 },
    /// Its queue refuses every message.
    Refusing,
}

/// The Worker itself, and beside it what takes its queue's place: an object whose `send` rejects.
const REFUSING_QUEUE: &str = r#"import { WorkerEntrypoint } from "cloudflare:workers";
export * from "WORKER";
export { default } from "WORKER";

export class RefusingQueue extends WorkerEntrypoint {
  async send() {
    throw new Error("Queue send failed: Internal Server Error");
  }
}
"#;

/// Writes the configuration that differs so; `None`: the repository's own will do.
pub(super) fn write(variant: Variant, scratch: &Scratch) -> io::Result<Option<PathBuf>> {
    let original = || fs::read_to_string(root().join("wrangler.toml")).map(|text| Configuration::read(&text));
    let changed = match variant {
        Variant::AsDeployed => return Ok(None),
        Variant::Impatient { max_retries } => original()?.impatient(max_retries),
        Variant::Refusing => {
            let (original, main) = (original()?, scratch.join("refusing_queue.js"));
            fs::write(&main, REFUSING_QUEUE.replace("WORKER", &original.main))?;
            original.refusing(&main.display().to_string())
        }
    };
    let path = scratch.join("wrangler.toml");
    fs::write(&path, changed.text)?;
    Ok(Some(path))
}

/// A configuration that may lie anywhere: its paths are absolute, and it builds nothing, which has been done. It has no
/// environment but the one that `wrangler dev` runs.
struct Configuration {
    text: String,
    /// The Worker's main module.
    main: String,
}

impl Configuration {
    /// Reads `wrangler.toml`.
    fn read(original: &str) -> Self {
        let mut main = String::new();
        let text = rewrite(original, |table, line| match line.strip_prefix("main = ") {
            _ if table == "[build]" || table.trim_start_matches('[').starts_with("env.") => None,
            Some(path) => {
                main = root().join(path.trim_matches('"')).display().to_string();
                Some(format!("main = {main:?}"))
            }
            None => Some(line.to_owned()),
        });
        Self { text, main }
    }

    /// With another number of retries.
    fn impatient(self, max_retries: u32) -> Self {
        let text = rewrite(&self.text, |_, line| {
            let is_it = line.starts_with("max_retries = ");
            Some(if is_it { format!("max_retries = {max_retries}") } else { line.to_owned() })
        });
        Self { text, ..self }
    }

    /// With the module `main`, made of [`REFUSING_QUEUE`]: the queue's binding leads to that.
    fn refusing(self, main: &str) -> Self {
        let mut name = String::new();
        let text = rewrite(&self.text, |table, line| match line.strip_prefix("name = ") {
            _ if table == "[[queues.producers]]" => None,
            Some(value) if table.is_empty() => {
                value.clone_into(&mut name);
                Some(line.to_owned())
            }
            _ if line.starts_with("main = ") => Some(format!("main = {main:?}")),
            _ => Some(line.to_owned()),
        });
        let binding =
            format!("\n[[services]]\nbinding = \"RETRIES\"\nservice = {name}\nentrypoint = \"RefusingQueue\"\n");
        Self { text: text + &binding, main: main.to_owned() }
    }
}

/// A TOML text with each line, and the head of the table that it is in, gone through `change`; `None` drops the line.
fn rewrite(text: &str, mut change: impl FnMut(&str, &str) -> Option<String>) -> String {
    let mut table = "";
    let mut changed = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with('[') {
            table = line;
        }
        if let Some(line) = change(table, line) {
            changed.push_str(&line);
            changed.push('\n');
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Configuration {
        Configuration::read(&fs::read_to_string(root().join("wrangler.toml")).expect("it is there"))
    }

    #[test]
    fn an_impatient_configuration_differs_in_its_retries_only() {
        let changed = original().impatient(1).text;
        assert!(changed.contains("max_retries = 1\n") && !changed.contains("max_retries = 100"), "{changed}");
        assert!(changed.contains("\nmain = \"/") && !changed.contains("[build]"), "{changed}");
        assert!(!changed.contains("[[env.") && !changed.contains("routes-production"), "{changed}");
        assert!(changed.contains("dead_letter_queue = "), "{changed}");
    }

    #[test]
    fn a_refusing_configuration_binds_something_else_than_the_queue() {
        let changed = original().refusing("/x.js").text;
        assert!(changed.contains("\nmain = \"/x.js\"\n") && !changed.contains("[[queues.producers]]"), "{changed}");
        assert_eq!(changed.matches("binding = \"RETRIES\"").count(), 1, "{changed}");
        assert!(changed.contains("\nservice = \"tandem-edge\"\nentrypoint = \"RefusingQueue\"\n"), "{changed}");
    }
}
