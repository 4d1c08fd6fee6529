//! The database: one file a table. Every statement is checked against the schema at compile time.
//!
//! Functions take a connection, so that the caller chooses the transaction. What Postgres holds as text becomes a
//! type of the domain here and nowhere else. No decisions are made here.

#![expect(
    deprecated,
    reason = "sqlx 0.9 warns of the `chrono` that the job library brings, even when told to use `time`"
)]

pub mod agents;
pub mod api_keys;
pub mod call_facts;
pub mod call_steps;
pub mod call_tools;
pub mod call_turns;
pub mod calls;
pub mod events;
pub mod idempotency;
pub mod imports;
pub mod inbox;
pub mod numbers;
pub mod pointings;
pub mod projects;
pub mod purchases;
pub mod recordings;
pub mod replica;
pub mod rollouts;
pub mod routes;
pub mod stream_tokens;
pub mod tool_runs;
pub mod tools;
pub mod transcript_items;

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Executor as _, PgConnection};

/// The schema's steps, compiled in.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Enough for the API, the jobs and the calls' batches; Postgres allows 100 by default, for all origins together.
const MAX_CONNECTIONS: u32 = 20;
/// A request that waits longer for a connection is better refused. The edge gives an event three seconds, of which
/// one is left for the refusal to be made and to arrive.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// No statement of ours takes a second; one that hangs must not hold its locks.
const SESSION_LIMITS: &str = "set statement_timeout = '10s'; set lock_timeout = '5s'; \
                              set idle_in_transaction_session_timeout = '30s'";

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres, or the way to it.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A value that the schema should have refused.
    #[error("the database holds an invalid {0}")]
    Corrupt(&'static str),
    /// Settings that no call could run with; all their faults.
    #[error("the settings are invalid: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl StoreError {
    /// The name of the constraint that a change would have broken, if that is what stopped it.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.constraint(),
            _ => None,
        }
    }

    /// Whether a lock was not to be had in time.
    pub fn is_lock_timeout(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().as_deref() == Some("55P03"),
            _ => false,
        }
    }

    /// Whether trying again later may help: the database is away, busy, restarting or moving to another server.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Corrupt(_) | Self::Invalid(_) => false,
            Self::Database(error) => match error {
                // The connection, or the way to one. A connection that is not in the state that it should be in is
                // given up by the pool, and the next one is another.
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::BeginFailed => true,
                sqlx::Error::Database(error) => error.code().is_some_and(|code| is_temporary_state(&code)),
                _ => false,
            },
        }
    }
}

/// Whether an SQLSTATE tells of a state of the server that passes.
fn is_temporary_state(code: &str) -> bool {
    // A database that was dropped does not come back by itself.
    if code == "57P04" {
        return false;
    }
    // Connections, rolled-back transactions (serialization, deadlocks), resources that are short, an operator's
    // intervention (shutdown, start, time limits), faults of the system below.
    let classes = ["08", "40", "53", "57", "58"];
    // A lock that was not to be had in time, a transaction that idled too long, and a server that was the primary
    // until just now.
    let codes = ["55P03", "25P03", "25006"];
    classes.iter().any(|class| code.starts_with(class)) || codes.contains(&code)
}

/// What a store function gives.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Opens the pool. Connects at once, so that a wrong address is found at start.
pub async fn connect(url: &SecretString) -> sqlx::Result<PgPool> {
    let options = PgConnectOptions::from_str(url.expose_secret())?.application_name("tandem");
    PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION_LIMITS).await.map(|_| ()) }))
        .connect_with(options)
        .await
}

/// A pool of one connection without limits on time: for migrations, which may wait for locks and rewrite tables.
pub async fn connect_unlimited(url: &SecretString) -> sqlx::Result<PgPool> {
    PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT).connect(url.expose_secret()).await
}

/// Whether every migration of this binary was applied, unchanged.
pub async fn is_migrated(conn: &mut PgConnection) -> sqlx::Result<bool> {
    let table: Option<String> =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations')::text").fetch_one(&mut *conn).await?;
    if table.is_none() {
        return Ok(false);
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("select version, checksum from _sqlx_migrations where success").fetch_all(conn).await?;
    Ok(MIGRATIONS
        .iter()
        .all(|ours| applied.iter().any(|(version, checksum)| *version == ours.version && **checksum == *ours.checksum)))
}

/// A text as Postgres can hold it: without NUL, which anybody may put into JSON.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

/// The same for every text in a JSON value.
fn json_without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(text)),
        Value::Array(items) => items.iter().map(json_without_nul).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (without_nul(name), json_without_nul(value))).collect()
        }
        other => other.clone(),
    }
}

/// A value as a JSON column holds it.
pub(crate) fn encode(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| StoreError::Database(sqlx::Error::Encode(error.into())))
}

/// A text column that the schema guarantees to be valid.
fn text<T: FromStr>(value: &str, what: &'static str) -> Result<T> {
    value.parse().map_err(|_| StoreError::Corrupt(what))
}

/// The same for a column that may be null.
fn optional_text<T: FromStr>(value: Option<&str>, what: &'static str) -> Result<Option<T>> {
    value.map(|value| text(value, what)).transpose()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fmt;
    use std::io;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// Postgres's answer with this SQLSTATE.
    #[derive(Debug)]
    struct Refusal(&'static str);

    impl fmt::Display for Refusal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Refusal {}

    impl DatabaseError for Refusal {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn is_temporary(error: sqlx::Error) -> bool {
        StoreError::from(error).is_temporary()
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for code in [
            "08000", "08006", "25006", "25P03", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P03",
            "58000", "58030",
        ] {
            assert!(is_temporary(sqlx::Error::Database(Box::new(Refusal(code)))), "{code}");
        }
        for code in ["22P05", "23505", "25P02", "28P01", "3D000", "42P01", "57P04", "XX000", "P0001"] {
            assert!(!is_temporary(sqlx::Error::Database(Box::new(Refusal(code)))), "{code}");
        }
    }

    #[test]
    fn a_lost_connection_passes() {
        for error in [
            sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()),
            sqlx::Error::Tls("the handshake was cut off".into()),
            sqlx::Error::PoolTimedOut,
            sqlx::Error::PoolClosed,
            sqlx::Error::WorkerCrashed,
            sqlx::Error::BeginFailed,
        ] {
            let text = error.to_string();
            assert!(is_temporary(error), "{text}");
        }
        for error in [sqlx::Error::RowNotFound, sqlx::Error::Protocol("odd".to_owned())] {
            let text = error.to_string();
            assert!(!is_temporary(error), "{text}");
        }
    }
}
