//! Logs and metrics: how the process tells what it does.
//!
//! Every metric is declared and explained in [`Metrics`]; nothing registers one elsewhere. No phone number in full,
//! no transcript, no body and no secret is logged at `info`.

use std::io::IsTerminal as _;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// What is logged when `RUST_LOG` says nothing: our own `info`, and only trouble from libraries.
const DEFAULT_FILTER: &str = "warn,origin=info,tandem=info";

/// Starts logging, to standard error: standard output belongs to the commands' answers.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let registry = tracing_subscriber::registry().with(filter);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second initialization (in a test) keeps the first.
    let _ = match format {
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
}

/// Everything that is counted and measured, as `GET /metrics` shows it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `tandem_http_requests_total`: requests answered, by method, route and status.
    pub http_requests: Family<RequestLabels, Counter>,
    /// `tandem_http_request_duration_seconds`: from the request's head to the answer's head, by route.
    pub http_duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// `tandem_replication_runs_total`: runs of the replication job, by outcome.
    pub replication_runs: Family<OutcomeLabels, Counter>,
    /// `tandem_replicated_keys_total`: keys written to or deleted from the edge's store.
    pub replicated_keys: Counter,
    /// `tandem_replication_pending_keys`: keys that differed from the tables when the job last looked.
    pub replication_pending: Gauge<u64, AtomicU64>,
    /// `tandem_deliveries_total`: events received, by sender and by what became of them: `applied`, `skipped` (the agent
    /// has left the system), `unknown` (no call or agent of ours), `repeated`, `conflict` (repeated with another body); `late` ones were unknown
    /// until their call was known.
    pub deliveries: Family<DeliveryLabels, Counter>,
    /// `tandem_tool_runs_total`: function calls, by outcome; `repeated` ones got the outcome of the first run.
    pub tool_runs: Family<OutcomeLabels, Counter>,
    /// `tandem_pruned_rows_total`: rows deleted because they are too old, by table.
    pub pruned: Family<TableLabels, Counter>,
    /// `tandem_reconciled_calls_total`: calls without news that a provider was asked about, by outcome: `closed`,
    /// `alive`, `missing` (the provider does not know the call; closed after a day), `failed`, `rate_limited`,
    /// `not_configured`.
    pub reconciled: Family<OutcomeLabels, Counter>,
    /// `tandem_replication_lag_seconds`: for how long the oldest change has waited to be replicated.
    pub replication_lag: Gauge,
    /// `tandem_replica_faults_total`: keys in the edge's store that a sweep found to be wrong: `missing`, `stale`,
    /// `changed`, `orphaned`, `ahead` (of a database from a backup).
    pub replica_faults: Family<FindingLabels, Counter>,
    /// `tandem_dead_letters`: events that wait to be replayed, when a sweep last looked.
    pub dead_letters: Gauge<u64, AtomicU64>,
    /// `tandem_live_calls`: calls bridged at this moment.
    pub live_calls: Gauge,
    /// `tandem_openai_sessions_total`: sessions that calls asked for, by outcome: `opened`, or why there was none.
    pub sessions: Family<OutcomeLabels, Counter>,
    /// `tandem_prepared_sessions_total`: calls that the edge told of before their stream, by what came of it: `claimed`,
    /// `expired` (no stream came), `died`, `dropped` (the call was over, or its stream wanted another session, or the
    /// origin stops), `full`, `not_bridged`, or why OpenAI gave none. Repeated and late notices do not count.
    pub prepared_sessions: Family<OutcomeLabels, Counter>,
    /// `tandem_streams_refused_total`: media streams that were not let in.
    pub streams_refused: Counter,
    /// `tandem_call_records_dropped_total`: facts of calls lost because too many waited for the database.
    pub call_records_dropped: Counter,
    /// `tandem_bridge_setup_seconds`: from a stream's start to a session that listens and speaks.
    pub bridge_setup: Histogram,
    /// `tandem_turn_latency_seconds`: from the end of a caller's words to the first audio of the answer.
    pub turn_latency: Histogram,
    /// `tandem_turn_heard_seconds`: from the end of a caller's words to the first sign that the answer was heard.
    pub turn_heard: Histogram,
    /// `tandem_interruptions_total`: times that callers cut the agent off.
    pub interruptions: Counter,
    /// `tandem_recordings_total`: recordings, by outcome: `stored`, `partial` (their origin died, or fell behind), `lost`;
    /// `failed` counts attempts to store one that are made again.
    pub recordings: Family<OutcomeLabels, Counter>,
    /// `tandem_system_switches_total`: agents switched, by the system they went to.
    pub switches: Family<SystemLabels, Counter>,
    /// `tandem_pointings_total`: attempts to point a number at Twilio, by outcome: `settled`, `conflict` (somebody else has
    /// changed it), `failed` (for good), `retried`, `rate_limited`.
    pub pointings: Family<OutcomeLabels, Counter>,
}

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// HTTP method.
    pub method: &'static str,
    /// The route's pattern, never the path: paths are unbounded.
    pub route: String,
    /// HTTP status.
    pub status: u16,
}

/// Label of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// The route's pattern.
    pub route: String,
}

/// Label of something that may fail.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `ok`, or what went wrong.
    pub outcome: &'static str,
}

/// Labels of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeliveryLabels {
    /// `twilio` or `vapi`.
    pub source: &'static str,
    /// What became of it.
    pub outcome: &'static str,
}

/// Label of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TableLabels {
    /// Its name.
    pub table: &'static str,
}

/// Label of a fault of the replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FindingLabels {
    /// `missing`, `stale`, `changed`, `orphaned` or `ahead`.
    pub finding: &'static str,
}

/// Label of a voice system.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SystemLabels {
    /// The system type.
    pub system: &'static str,
}

impl Metrics {
    /// Declares every metric.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tandem");
        let metrics = Self {
            http_requests: Family::default(),
            // 1 ms to 16 s.
            http_duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15))),
            replication_runs: Family::default(),
            replicated_keys: Counter::default(),
            replication_pending: Gauge::default(),
            deliveries: Family::default(),
            tool_runs: Family::default(),
            pruned: Family::default(),
            reconciled: Family::default(),
            replication_lag: Gauge::default(),
            replica_faults: Family::default(),
            dead_letters: Gauge::default(),
            live_calls: Gauge::default(),
            sessions: Family::default(),
            prepared_sessions: Family::default(),
            streams_refused: Counter::default(),
            call_records_dropped: Counter::default(),
            // 10 ms to 20 s, half an octave apart: what matters is between a half and two seconds.
            bridge_setup: Histogram::new(exponential_buckets(0.01, std::f64::consts::SQRT_2, 23)),
            turn_latency: Histogram::new(exponential_buckets(0.01, std::f64::consts::SQRT_2, 23)),
            turn_heard: Histogram::new(exponential_buckets(0.01, std::f64::consts::SQRT_2, 23)),
            interruptions: Counter::default(),
            recordings: Family::default(),
            switches: Family::default(),
            pointings: Family::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Requests answered", metrics.http_requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From the request's head to the answer's head",
            Unit::Seconds,
            metrics.http_duration.clone(),
        );
        registry.register("replication_runs", "Runs of the replication job", metrics.replication_runs.clone());
        registry.register(
            "replicated_keys",
            "Keys written to or deleted from the edge's store",
            metrics.replicated_keys.clone(),
        );
        registry.register(
            "replication_pending_keys",
            "Keys that differed from the tables when the replication job last looked",
            metrics.replication_pending.clone(),
        );
        registry.register("deliveries", "Events received, by what became of them", metrics.deliveries.clone());
        registry.register("tool_runs", "Function calls, by outcome", metrics.tool_runs.clone());
        registry.register("pruned_rows", "Rows deleted because they are too old", metrics.pruned.clone());
        registry.register(
            "reconciled_calls",
            "Calls without news that a provider was asked about",
            metrics.reconciled.clone(),
        );
        registry.register_with_unit(
            "replication_lag",
            "For how long the oldest change has waited to be replicated",
            Unit::Seconds,
            metrics.replication_lag.clone(),
        );
        registry.register(
            "replica_faults",
            "Keys in the edge's store that were found to be wrong",
            metrics.replica_faults.clone(),
        );
        registry.register("dead_letters", "Events that wait to be replayed", metrics.dead_letters.clone());
        registry.register("live_calls", "Calls bridged at this moment", metrics.live_calls.clone());
        registry.register("openai_sessions", "Sessions at OpenAI that calls asked for", metrics.sessions.clone());
        let help = "Calls that the edge told of before their stream, by what came of it";
        registry.register("prepared_sessions", help, metrics.prepared_sessions.clone());
        registry.register("streams_refused", "Media streams that were not let in", metrics.streams_refused.clone());
        registry.register(
            "call_records_dropped",
            "Facts of calls lost because too many waited for the database",
            metrics.call_records_dropped.clone(),
        );
        registry.register_with_unit(
            "bridge_setup",
            "From a stream's start to a session that listens and speaks",
            Unit::Seconds,
            metrics.bridge_setup.clone(),
        );
        registry.register_with_unit(
            "turn_latency",
            "From the end of a caller's words to the first audio of the answer",
            Unit::Seconds,
            metrics.turn_latency.clone(),
        );
        registry.register_with_unit(
            "turn_heard",
            "From the end of a caller's words to the first sign that the answer was heard",
            Unit::Seconds,
            metrics.turn_heard.clone(),
        );
        metrics.register_counts(&mut registry);
        Self { registry, ..metrics }
    }

    /// What is only counted.
    fn register_counts(&self, registry: &mut Registry) {
        registry.register("interruptions", "Times that callers cut the agent off", self.interruptions.clone());
        registry.register("recordings", "Sound recordings, by outcome", self.recordings.clone());
        registry.register("system_switches", "Agents switched to a system", self.switches.clone());
        registry.register("pointings", "Attempts to point a number at Twilio", self.pointings.clone());
    }

    /// Counts an answered request.
    pub fn observe_request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        self.http_requests.get_or_create(&RequestLabels { method, route: route.to_owned(), status }).inc();
        self.http_duration.get_or_create(&RouteLabels { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    /// The text of `GET /metrics`, in the `OpenMetrics` format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_encoded_under_one_prefix() {
        let metrics = Metrics::new();
        metrics.observe_request("GET", "/healthz", 200, Duration::from_millis(3));
        metrics.replicated_keys.inc_by(2);
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"tandem_http_requests_total{method="GET",route="/healthz",status="200"} 1"#), "{text}");
        assert!(text.contains("tandem_http_request_duration_seconds_bucket"));
        assert!(text.contains("tandem_replicated_keys_total 2"));
    }
}
