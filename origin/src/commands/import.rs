//! The command line: `tandem import vapi`.

mod print;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use origin::config;
use origin::import::convert::Options;
use origin::import::mapping::VOICES;
use origin::import::{Import, Selection, Verdict};
use origin::providers::vapi::assistants::Reader;
use origin::store::projects;
use shared::AssistantId;

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Make or update agents and tools from Vapi's assistants, and report what became of every field.
    Vapi(VapiArgs),
}

/// What to import, and what is decided already.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  imported; nothing was lost, and nothing approximated that a person must decide
  1  something failed: an assistant was not imported
  2  wrong usage
  3  imported, but a person must decide about what was lost or approximated; decisions are
     made with --voice, --model and --accept

An import never touches an agent's system type, and running it again changes only what has
changed at Vapi. Reads VAPI_API_KEY, VAPI_API_URL and DATABASE_URL.")]
pub(crate) struct VapiArgs {
    /// The project that agents are made in, by name or id.
    #[arg(long, value_name = "NAME|ID")]
    project: String,
    /// An assistant to import; may be repeated.
    #[arg(long = "assistant", value_name = "ID", required_unless_present = "all")]
    assistants: Vec<AssistantId>,
    /// Import all assistants of the organisation.
    #[arg(long, conflicts_with = "assistants")]
    all: bool,
    /// Show what would be made and changed, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// OpenAI's voice for one of Vapi's, such as 11labs:rachel=marin, or default=marin for assistants that name none; may
    /// be repeated.
    #[arg(long = "voice", value_name = "PROVIDER:VOICEID=VOICE", value_parser = substitute)]
    voices: Vec<(String, String)>,
    /// OpenAI's realtime model for assistants that run on none.
    #[arg(long)]
    model: Option<String>,
    /// A field whose loss or approximation is accepted, such as model.temperature, analysisPlan.** or hooks[*].**; may
    /// be repeated.
    #[arg(long = "accept", value_name = "FIELD")]
    accepted: Vec<String>,
}

fn substitute(text: &str) -> Result<(String, String), String> {
    let (theirs, ours) = text.rsplit_once('=').ok_or("it must be PROVIDER:VOICEID=VOICE")?;
    // Voices of one's own have such ids.
    if !VOICES.contains(&ours) && !ours.starts_with("voice_") {
        return Err(format!("OpenAI's voices are {}", VOICES.join(", ")));
    }
    if theirs.is_empty() {
        return Err("it must be PROVIDER:VOICEID=VOICE".to_owned());
    }
    Ok((theirs.to_owned(), ours.to_owned()))
}

pub(crate) async fn run(command: ImportCommand) -> anyhow::Result<ExitCode> {
    let ImportCommand::Vapi(args) = command;
    let api = config::vapi_api()?;
    let mut conn = crate::connect_migrated().await?;
    let project = projects::find(&mut conn, &args.project)
        .await?
        .with_context(|| format!("there is no project {:?}", args.project))?;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let options = Options {
        model: args.model,
        voices: args.voices.into_iter().collect(),
        accepted: args.accepted,
        own_hosts: api.own_hosts.clone(),
    };
    let selection = if args.all { Selection::All } else { Selection::Ids(args.assistants) };
    let import = Import { reader: Reader::new(&http, &api), project, options: &options, dry_run: args.dry_run };
    let attempts = import.run(&mut conn, &selection).await?;
    let verdict = Verdict::on(&attempts);
    if args.json {
        println!("{:#}", print::as_json(&attempts, args.dry_run, verdict));
    } else {
        print!("{}", print::as_text(&attempts, args.dry_run, verdict));
    }
    Ok(ExitCode::from(verdict.exit_code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutes_are_of_openais_voices() {
        assert_eq!(substitute("11labs:a=b=marin").unwrap(), ("11labs:a=b".to_owned(), "marin".to_owned()));
        assert!(substitute("default=voice_123").is_ok());
        for wrong in ["marin", "11labs:rachel=nova", "=marin"] {
            assert!(substitute(wrong).is_err(), "{wrong}");
        }
    }
}
