//! Configuration: typed, from the environment, checked at start with every fault reported together.
//!
//! A service that is not configured is `None`, and [`Config::services`] says so at start. A service configured by
//! half is a fault: it would fail at the first call instead of at start.

mod shared_secret;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use shared::AccountSid;

pub use self::shared_secret::SharedSecret;
use crate::prices::PriceTable;

/// Longer than most calls. What is still up then is handed over.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_mins(10);

/// Everything `tandem serve` needs to know.
#[derive(Debug)]
pub struct Config {
    /// `DATABASE_URL`: Postgres.
    pub database_url: SecretString,
    /// `BIND_ADDR`: where HTTP is served; default `127.0.0.1:8080`.
    pub bind_addr: SocketAddr,
    /// `EDGE_URL`: public https URL of the Worker, without a path.
    pub edge_url: Url,
    /// `MEDIA_URL`: public wss URL of `/media-stream`.
    pub media_url: Url,
    /// `EDGE_ORIGIN_SECRET`: signs requests between edge and origin, and stream tokens. Comma-separated while rotating.
    pub edge_origin_secret: SharedSecret,
    /// OpenAI Realtime: without it no agent can be on `openai-realtime`.
    pub openai: Option<OpenAi>,
    /// Twilio: webhooks and REST.
    pub twilio: Option<Twilio>,
    /// Vapi: webhooks and REST.
    pub vapi: Option<Vapi>,
    /// Cloudflare: replication of routes to the edge.
    pub cloudflare: Option<Cloudflare>,
    /// `DRAIN_TIMEOUT_SECONDS`: how long calls may go on after a request to stop; default 600.
    pub drain_timeout: Duration,
    /// `MAX_LIVE_CALLS`: how many calls this process bridges at a time; what comes beyond is handed on. `None`: no limit.
    pub max_live_calls: Option<usize>,
    /// `MAX_CALL_SECONDS`: how long a call of an agent without a limit of its own may take; default 7200.
    pub max_call_seconds: u32,
    /// `SILENCE_SECONDS`: how much silence ends a call of an agent without a limit of its own; default 300.
    pub silence_seconds: u32,
    /// `API_REQUESTS_PER_SECOND`: how many requests an API key may make, and ten times as many at once; default 20.
    pub api_requests_per_second: NonZeroU16,
    /// `TOOLS_ALLOW_PRIVATE=1`: tools may be called on private and link-local addresses.
    pub tools_allow_private: bool,
    /// Where calls are recorded to, if they are.
    pub recording: Option<Recording>,
    /// `PRICES_FILE`: a JSON file of what tokens cost; default: the prices that are built in.
    pub prices: PriceTable,
}

/// OpenAI Realtime.
#[derive(Debug)]
pub struct OpenAi {
    /// `OPENAI_API_KEY`.
    pub api_key: SecretString,
    /// `OPENAI_REALTIME_URL`: default `wss://api.openai.com/v1/realtime`.
    pub realtime_url: Url,
    /// `OPENAI_MODEL`: for agents that name none; default `gpt-realtime-2.1`.
    pub model: String,
    /// `OPENAI_SESSION_SECONDS`: how long a session is used at most, less if OpenAI says so; default 3600.
    pub session_lasts: Duration,
}

/// Twilio.
#[derive(Debug)]
pub struct Twilio {
    /// `TWILIO_ACCOUNT_SID`.
    pub account_sid: AccountSid,
    /// `TWILIO_AUTH_TOKEN`: comma-separated while rotating; a sub-account's as `AC…:token`. All verify, the first of an
    /// account is used for REST. Never empty.
    pub auth_tokens: Vec<SecretString>,
    /// `TWILIO_API_URL`: default `https://api.twilio.com`.
    pub api_url: Url,
    /// `TWILIO_CONCURRENCY`: how many numbers are worked on at a time; default 4. Twilio limits concurrent requests, and
    /// those of live calls come first.
    pub concurrency: NonZeroUsize,
}

impl Twilio {
    /// What opens this account's part of the REST API: a user and its password. The main account's token opens the
    /// parts of its sub-accounts, too.
    pub fn credentials(&self, account: &AccountSid) -> (String, Option<&str>) {
        let own = self.tokens().find(|(owner, _)| owner.as_ref() == Some(account));
        let main = || self.tokens().find(|(owner, _)| owner.as_ref().is_none_or(|owner| *owner == self.account_sid));
        match own {
            Some((_, token)) => (account.to_string(), Some(token)),
            None => (self.account_sid.to_string(), main().map(|(_, token)| token)),
        }
    }

    /// The main account, and those that have tokens of their own.
    pub fn accounts(&self) -> Vec<AccountSid> {
        let mut accounts = vec![self.account_sid.clone()];
        for owner in self.tokens().filter_map(|(owner, _)| owner) {
            if !accounts.contains(&owner) {
                accounts.push(owner);
            }
        }
        accounts
    }

    /// The tokens, and whose each is; `None`: the main account's.
    fn tokens(&self) -> impl Iterator<Item = (Option<AccountSid>, &str)> {
        self.auth_tokens.iter().map(|token| {
            let token = token.expose_secret();
            match token.split_once(':').and_then(|(owner, token)| Some((owner.parse().ok()?, token))) {
                Some((owner, token)) => (Some(owner), token),
                None => (None, token),
            }
        })
    }
}

/// Vapi.
#[derive(Clone, Debug)]
pub struct Vapi {
    /// `VAPI_API_KEY`.
    pub api_key: SecretString,
    /// `VAPI_SERVER_SECRET`: comma-separated while rotating. Never empty.
    pub server_secrets: Vec<SecretString>,
    /// `VAPI_API_URL`: default `https://api.vapi.ai`.
    pub api_url: Url,
}

/// Vapi's REST API alone, for commands that read from it.
#[derive(Debug)]
pub struct VapiApi {
    /// `VAPI_API_KEY`.
    pub api_key: SecretString,
    /// `VAPI_API_URL`: default `https://api.vapi.ai`.
    pub api_url: Url,
    /// The hosts of `EDGE_URL` and `MEDIA_URL`, as far as these are set: Tandem itself.
    pub own_hosts: Vec<String>,
}

/// Cloudflare's KV, the edge's store of routes.
#[derive(Debug)]
pub struct Cloudflare {
    /// `CLOUDFLARE_ACCOUNT_ID`.
    pub account_id: String,
    /// `CLOUDFLARE_API_TOKEN`: needs the permission "Workers KV Storage Write".
    pub api_token: SecretString,
    /// `CLOUDFLARE_KV_NAMESPACE_ID`: the namespace bound to the Worker as `ROUTES`.
    pub namespace_id: String,
    /// `CLOUDFLARE_API_URL`: default `https://api.cloudflare.com/client/v4`.
    pub api_url: Url,
}

/// Sound recordings.
#[derive(Debug)]
pub struct Recording {
    /// `RECORDING_STORE`.
    pub store: RecordingStore,
    /// `RECORDING_SPOOL_DIR`: where recordings are made before they are stored; default `tandem-recordings` in the
    /// directory for temporary files.
    pub spool: PathBuf,
}

/// Where recordings are kept.
#[derive(Debug)]
pub enum RecordingStore {
    /// A directory: an absolute path.
    Directory(PathBuf),
    /// A bucket: `s3://bucket` or `s3://bucket/prefix`.
    S3(S3),
}

/// A bucket of S3, or of something that speaks like it.
#[derive(Debug)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// What all keys begin with.
    pub prefix: String,
    /// `AWS_REGION`: default `us-east-1`.
    pub region: String,
    /// `AWS_ENDPOINT_URL`: for other services than Amazon's.
    pub endpoint: Option<Url>,
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; without them the machine's own role counts.
    pub key: Option<(String, SecretString)>,
}

/// Which voice systems this origin can run calls on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Systems {
    /// OpenAI Realtime is configured.
    pub openai_realtime: bool,
    /// Vapi is configured.
    pub vapi: bool,
}

/// How log lines look; `LOG_FORMAT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// All that is wrong with the environment, each fault naming its variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(BTreeSet<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, Faults> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads variables from `lookup`. An empty variable counts as unset.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        let mut vars = Vars { lookup: &lookup, faults: BTreeSet::new() };
        let config = vars.config();
        match config {
            Some(config) if vars.faults.is_empty() => Ok(config),
            _ => Err(Faults(vars.faults)),
        }
    }

    /// The edge's public base, without a slash at its end.
    pub fn edge_base(&self) -> String {
        self.edge_url.as_str().trim_end_matches('/').to_owned()
    }

    /// The origin's own public base: where `MEDIA_URL` points, over https.
    pub fn origin_base(&self) -> String {
        // An origin of a special scheme, such as wss, is `scheme://host[:port]`.
        self.media_url.origin().ascii_serialization().replacen("ws", "http", 1)
    }

    /// One sentence for each optional service: whether it is on, and what that means.
    pub fn services(&self) -> [&'static str; 5] {
        let say = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
        [
            say(
                self.openai.is_some(),
                "OpenAI Realtime is on",
                "OpenAI Realtime is off: set OPENAI_API_KEY to bridge calls",
            ),
            say(
                self.twilio.is_some(),
                "Twilio is on",
                "Twilio is off: set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN to take webhooks from Twilio itself",
            ),
            say(
                self.vapi.is_some(),
                "Vapi is on",
                "Vapi is off: set VAPI_API_KEY and VAPI_SERVER_SECRET to hand calls to Vapi",
            ),
            say(
                self.cloudflare.is_some(),
                "Replication to the edge is on",
                "Replication to the edge is off: set CLOUDFLARE_ACCOUNT_ID, CLOUDFLARE_API_TOKEN and \
                 CLOUDFLARE_KV_NAMESPACE_ID; until then the edge asks the origin about every call",
            ),
            say(
                self.recording.is_some(),
                "Recording is on, for agents that ask for it",
                "Recording is off: set RECORDING_STORE to record calls of agents that ask for it",
            ),
        ]
    }

    /// Which voice systems are configured.
    pub fn systems(&self) -> Systems {
        Systems { openai_realtime: self.openai.is_some(), vapi: self.vapi.is_some() }
    }
}

/// `DATABASE_URL` alone, for the commands that need nothing else.
pub fn database_url() -> Result<SecretString, Faults> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut vars = Vars { lookup: &lookup, faults: BTreeSet::new() };
    vars.database_url().ok_or(Faults(vars.faults))
}

/// Vapi's REST API alone.
pub fn vapi_api() -> Result<VapiApi, Faults> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut vars = Vars { lookup: &lookup, faults: BTreeSet::new() };
    let api_url = vars.service_url("VAPI_API_URL", "https://api.vapi.ai");
    let api_key = vars.required("VAPI_API_KEY");
    let own = ["EDGE_URL", "MEDIA_URL"].into_iter().filter_map(|name| vars.optional(name));
    let own_hosts = own.filter_map(|url| Some(Url::parse(&url).ok()?.host_str()?.to_owned())).collect();
    match (api_key, api_url) {
        (Some(api_key), Some(api_url)) => Ok(VapiApi { api_key: api_key.into(), api_url, own_hosts }),
        _ => Err(Faults(vars.faults)),
    }
}

impl LogFormat {
    /// `LOG_FORMAT` alone: logging starts before anything else is read.
    pub fn from_env() -> Result<Self, Faults> {
        match std::env::var("LOG_FORMAT").unwrap_or_default().as_str() {
            "" | "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Faults(BTreeSet::from(["LOG_FORMAT must be `text` or `json`".to_owned()]))),
        }
    }
}

/// The variables, and what was found wrong with them so far.
struct Vars<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    faults: BTreeSet<String>,
}

impl Vars<'_> {
    /// Reads everything before deciding, so that all faults are found in one go.
    fn config(&mut self) -> Option<Config> {
        let database_url = self.database_url();
        let bind_addr = self.parsed("BIND_ADDR", "127.0.0.1:8080", "an address such as 127.0.0.1:8080");
        let edge_url = self.public_url("EDGE_URL", "https");
        let media_url = self.public_url("MEDIA_URL", "wss");
        let edge_origin_secret = self
            .required("EDGE_ORIGIN_SECRET")
            .and_then(|list| self.secrets("EDGE_ORIGIN_SECRET", &list))
            .and_then(SharedSecret::of);
        let openai = self.openai();
        let twilio = self.twilio();
        let vapi = self.vapi();
        let cloudflare = self.cloudflare();
        let drain =
            self.parsed("DRAIN_TIMEOUT_SECONDS", &DEFAULT_DRAIN_TIMEOUT.as_secs().to_string(), "a number of seconds");
        let max_live_calls =
            self.optional("MAX_LIVE_CALLS").map(|_| self.parsed("MAX_LIVE_CALLS", "", "a number of calls"));
        let max_call_seconds = self.parsed("MAX_CALL_SECONDS", "7200", "a number of seconds");
        let silence_seconds = self.parsed("SILENCE_SECONDS", "300", "a number of seconds");
        let api_requests_per_second = self.parsed("API_REQUESTS_PER_SECOND", "20", "1 to 65535");
        let tools_allow_private = self.flag("TOOLS_ALLOW_PRIVATE");
        let prices = self.prices();
        let recording = self.recording();

        if let Some(url) = &edge_url
            && (url.path() != "/" || url.query().is_some())
        {
            self.fault("EDGE_URL must be the Worker's address without a path");
        }
        Some(Config {
            database_url: database_url?,
            bind_addr: bind_addr?,
            edge_url: edge_url?,
            media_url: media_url?,
            edge_origin_secret: edge_origin_secret?,
            openai,
            twilio,
            vapi,
            cloudflare,
            drain_timeout: Duration::from_secs(drain?),
            max_live_calls: max_live_calls.flatten(),
            max_call_seconds: max_call_seconds?,
            silence_seconds: silence_seconds?,
            api_requests_per_second: api_requests_per_second?,
            tools_allow_private,
            recording,
            prices: prices?,
        })
    }

    fn database_url(&mut self) -> Option<SecretString> {
        let url = self.required("DATABASE_URL")?;
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            self.fault("DATABASE_URL must start with postgres://");
        }
        Some(url.into())
    }

    fn openai(&mut self) -> Option<OpenAi> {
        let realtime_url = self.service_url("OPENAI_REALTIME_URL", "wss://api.openai.com/v1/realtime");
        let model = self.optional("OPENAI_MODEL").unwrap_or_else(|| "gpt-realtime-2.1".to_owned());
        let lasts = self.parsed("OPENAI_SESSION_SECONDS", "3600", "a number of seconds");
        Some(OpenAi {
            api_key: self.optional("OPENAI_API_KEY")?.into(),
            realtime_url: realtime_url?,
            model,
            session_lasts: Duration::from_secs(lasts?),
        })
    }

    fn twilio(&mut self) -> Option<Twilio> {
        let api_url = self.service_url("TWILIO_API_URL", "https://api.twilio.com");
        let concurrency = self.parsed("TWILIO_CONCURRENCY", "4", "a number of requests, at least 1");
        let [account_sid, auth_token] = self.together(["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"])?;
        let Ok(account_sid) = AccountSid::new(account_sid) else {
            self.fault("TWILIO_ACCOUNT_SID must be an account SID, AC…");
            return None;
        };
        let auth_tokens = self.secrets("TWILIO_AUTH_TOKEN", &auth_token)?;
        Some(Twilio { account_sid, auth_tokens, api_url: api_url?, concurrency: concurrency? })
    }

    fn vapi(&mut self) -> Option<Vapi> {
        let api_url = self.service_url("VAPI_API_URL", "https://api.vapi.ai");
        let [api_key, secret] = self.together(["VAPI_API_KEY", "VAPI_SERVER_SECRET"])?;
        let server_secrets = self.secrets("VAPI_SERVER_SECRET", &secret)?;
        Some(Vapi { api_key: api_key.into(), server_secrets, api_url: api_url? })
    }

    fn cloudflare(&mut self) -> Option<Cloudflare> {
        let api_url = self.service_url("CLOUDFLARE_API_URL", "https://api.cloudflare.com/client/v4");
        let names = ["CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_KV_NAMESPACE_ID"];
        let values = self.together(names)?;
        // Both ids become parts of a path.
        for (name, value) in [(names[0], &values[0]), (names[2], &values[2])] {
            if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                self.fault(format!("{name} must hold letters and digits only"));
            }
        }
        let [account_id, api_token, namespace_id] = values;
        Some(Cloudflare { account_id, api_token: api_token.into(), namespace_id, api_url: api_url? })
    }

    fn recording(&mut self) -> Option<Recording> {
        let place = self.optional("RECORDING_STORE")?;
        let spool = self.optional("RECORDING_SPOOL_DIR").map(PathBuf::from);
        let spool = spool.unwrap_or_else(|| std::env::temp_dir().join("tandem-recordings"));
        let store = match place.strip_prefix("s3://") {
            Some(bucket) => {
                let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
                let region = self.optional("AWS_REGION").unwrap_or_else(|| "us-east-1".to_owned());
                let endpoint = match self.optional("AWS_ENDPOINT_URL") {
                    Some(_) => self.service_url("AWS_ENDPOINT_URL", "https://s3.amazonaws.com"),
                    None => None,
                };
                let key = self.together(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
                let key = key.map(|[id, secret]| (id, secret.into()));
                RecordingStore::S3(S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned(), region, endpoint, key })
            }
            None => RecordingStore::Directory(place.into()),
        };
        let is_named = match &store {
            RecordingStore::Directory(path) => path.is_absolute(),
            RecordingStore::S3(s3) => !s3.bucket.is_empty(),
        };
        if !is_named || !spool.is_absolute() {
            self.fault("RECORDING_STORE must be an absolute path or s3://bucket, RECORDING_SPOOL_DIR an absolute path");
        }
        Some(Recording { store, spool })
    }

    fn prices(&mut self) -> Option<PriceTable> {
        let Some(path) = self.optional("PRICES_FILE") else { return Some(PriceTable::built_in()) };
        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        match read.and_then(|text| PriceTable::read(&text).map_err(|error| error.to_string())) {
            Ok(table) => Some(table),
            Err(error) => {
                self.fault(format!("PRICES_FILE must name a file of prices: {error}"));
                None
            }
        }
    }

    fn fault(&mut self, fault: impl Into<String>) {
        self.faults.insert(fault.into());
    }

    fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &str) -> Option<String> {
        let value = self.optional(name);
        if value.is_none() {
            self.fault(format!("{name} is not set"));
        }
        value
    }

    /// The values of variables that only make sense together: all of them or none.
    fn together<const N: usize>(&mut self, names: [&str; N]) -> Option<[String; N]> {
        let values = names.map(|name| self.optional(name));
        if values.iter().all(Option::is_none) {
            return None;
        }
        for (name, _) in names.iter().zip(&values).filter(|(_, value)| value.is_none()) {
            let present = names.iter().zip(&values).find(|(_, value)| value.is_some());
            self.fault(format!("{name} is not set, but {} is", present.map_or("its partner", |(name, _)| *name)));
        }
        let values: Option<Vec<String>> = values.into_iter().collect();
        values?.try_into().ok()
    }

    fn secrets(&mut self, name: &str, list: &str) -> Option<Vec<SecretString>> {
        let secrets: Vec<SecretString> =
            list.split(',').map(str::trim).filter(|one| !one.is_empty()).map(SecretString::from).collect();
        if secrets.is_empty() {
            self.fault(format!("{name} holds no value"));
            return None;
        }
        Some(secrets)
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, default: &str, expected: &str) -> Option<T> {
        let value = self.optional(name).unwrap_or_else(|| default.to_owned()).parse().ok();
        if value.is_none() {
            self.fault(format!("{name} must be {expected}"));
        }
        value
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.optional(name).as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => {
                self.fault(format!("{name} must be 1 or 0"));
                false
            }
        }
    }

    /// A URL that others call: Twilio takes nothing but https and wss, and no query in a stream's URL.
    fn public_url(&mut self, name: &str, scheme: &str) -> Option<Url> {
        let value = self.required(name)?;
        let url = Url::parse(&value).ok();
        let url = url.filter(|url| is_safe(url, scheme) && url.query().is_none() && url.fragment().is_none());
        if url.is_none() {
            self.fault(format!("{name} must be a {scheme}:// URL without a query (unencrypted only on this machine)"));
        }
        url
    }

    /// A URL that we call, with a key: encrypted, or on this machine.
    fn service_url(&mut self, name: &str, default: &str) -> Option<Url> {
        let value = self.optional(name).unwrap_or_else(|| default.to_owned());
        let scheme = if default.starts_with("wss") { "wss" } else { "https" };
        let url = Url::parse(&value).ok().filter(|url| is_safe(url, scheme));
        if url.is_none() {
            self.fault(format!("{name} must be a {scheme}:// URL (unencrypted only on this machine)"));
        }
        url
    }
}

/// Whether a URL has this encrypted scheme, or its plain twin and stays on this machine.
fn is_safe(url: &Url, scheme: &str) -> bool {
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    url.has_host() && (url.scheme() == scheme || (local && scheme.strip_suffix('s') == Some(url.scheme())))
}

/// The tokens as plain text, for code that checks signatures. Keep the result short-lived.
pub fn exposed(secrets: &[SecretString]) -> Vec<&str> {
    secrets.iter().map(ExposeSecret::expose_secret).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [(&str, &str); 4] = [
        ("DATABASE_URL", "postgres://tandem@localhost/tandem"),
        ("EDGE_URL", "https://edge.example.com"),
        ("MEDIA_URL", "wss://origin.example.com/media-stream"),
        ("EDGE_ORIGIN_SECRET", "0123456789abcdef0123456789abcdef"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<Config, Faults> {
        let find = |vars: &[(&str, &str)], name: &str| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Config::read(|name| find(more, name).or_else(|| find(&REQUIRED, name)))
    }

    #[test]
    fn the_required_variables_suffice() {
        let config = read(&[]).unwrap();
        assert_eq!(config.bind_addr, "127.0.0.1:8080".parse().unwrap());
        assert!(config.openai.is_none() && config.twilio.is_none());
        assert!(config.services().iter().all(|line| line.contains("off: ")));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let faults = Config::read(|name| match name {
            "EDGE_URL" => Some("http://edge.example.com".to_owned()),
            "TWILIO_ACCOUNT_SID" => Some("AC1".to_owned()),
            "VAPI_API_URL" => Some("http://vapi.example.com".to_owned()),
            "BIND_ADDR" => Some("8080".to_owned()),
            "MAX_LIVE_CALLS" => Some("many".to_owned()),
            "PRICES_FILE" => Some("/nowhere.json".to_owned()),
            "RECORDING_STORE" => Some("recordings".to_owned()),
            _ => None,
        })
        .unwrap_err()
        .to_string();
        for name in [
            "DATABASE_URL is not set",
            "MEDIA_URL is not set",
            "EDGE_URL must",
            "EDGE_ORIGIN_SECRET is not set",
            "TWILIO_AUTH_TOKEN is not set, but TWILIO_ACCOUNT_SID is",
            "VAPI_API_URL must",
            "BIND_ADDR must",
            "MAX_LIVE_CALLS must",
            "PRICES_FILE must",
            "RECORDING_STORE must",
        ] {
            assert!(faults.contains(name), "{name}: {faults}");
        }
    }

    #[test]
    fn services_are_read_whole() {
        let config = read(&[
            ("OPENAI_API_KEY", "sk-1"),
            ("OPENAI_REALTIME_URL", "ws://127.0.0.1:9000/v1/realtime"),
            ("TWILIO_ACCOUNT_SID", "AC0123"),
            ("TWILIO_AUTH_TOKEN", "new, old"),
            ("DRAIN_TIMEOUT_SECONDS", "30"),
            ("MAX_LIVE_CALLS", "700"),
        ])
        .unwrap();
        assert_eq!(config.openai.unwrap().model, "gpt-realtime-2.1");
        assert_eq!(exposed(&config.twilio.unwrap().auth_tokens), ["new", "old"]);
        assert_eq!(config.drain_timeout, Duration::from_secs(30));
        assert_eq!(config.max_live_calls, Some(700));
    }

    #[test]
    fn each_account_has_its_token() {
        let config = read(&[("TWILIO_ACCOUNT_SID", "AC01"), ("TWILIO_AUTH_TOKEN", "AC02:second, first, older")]);
        let twilio = config.unwrap().twilio.unwrap();
        let credentials = |account: &str| {
            let (user, token) = twilio.credentials(&account.parse().unwrap());
            (user, token.unwrap().to_owned())
        };
        let pair = |user: &str, token: &str| (user.to_owned(), token.to_owned());
        assert_eq!(credentials("AC01"), pair("AC01", "first"));
        assert_eq!(credentials("AC02"), pair("AC02", "second"));
        assert_eq!(credentials("AC03"), pair("AC01", "first"), "a parent opens its sub-accounts");
        let accounts: Vec<String> = twilio.accounts().iter().map(ToString::to_string).collect();
        assert_eq!(accounts, ["AC01", "AC02"]);
    }

    #[test]
    fn secrets_cannot_be_printed() {
        let text = format!("{:?}", read(&[("OPENAI_API_KEY", "sk-1")]).unwrap());
        assert!(!text.contains("sk-1") && !text.contains("0123456789abcdef") && !text.contains("tandem@"));
    }
}
