//! The chain of a project's events, as it is read to be verified. The database makes it, see the migration
//! `event_chain`; here is what an event's hash is made of, independently of the database's own function.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use shared::ProjectId;
use shared::hmac::{from_hex, to_hex};
use sqlx::PgConnection;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::store::{Result, StoreError};

/// The hash of an event, which covers the one before it and so the whole log up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHash([u8; 32]);

impl EventHash {
    /// What the first event follows on.
    pub const START: Self = Self([0; 32]);

    /// The hash of an event with these fields that follows on `previous`.
    pub fn of(previous: Self, fields: &[Option<String>]) -> Self {
        let fields: Vec<String> = fields
            .iter()
            .map(|field| match field {
                Some(text) => format!("{}:{text}", text.chars().count()),
                None => "-".to_owned(),
            })
            .collect();
        Self(Sha256::new().chain_update(previous.0).chain_update(fields.join(",")).finalize().into())
    }
}

impl TryFrom<&[u8]> for EventHash {
    type Error = StoreError;

    fn try_from(bytes: &[u8]) -> Result<Self> {
        bytes.try_into().map(Self).map_err(|_| StoreError::Corrupt("hash of an event"))
    }
}

impl fmt::Display for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl FromStr for EventHash {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        from_hex(text)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or("the hash of an event has 64 hexadecimal digits")
    }
}

impl Serialize for EventHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for EventHash {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{64}$")).into()
    }
}

impl ToSchema for EventHash {}

/// Where a project's chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// How many events there are.
    pub count: i64,
    /// The last one's hash.
    pub hash: EventHash,
}

impl Head {
    /// Before the first event.
    pub const START: Self = Self { count: 0, hash: EventHash::START };
}

/// An event as a link of the chain.
#[derive(Clone, Debug)]
pub struct Link {
    /// The event.
    pub id: i64,
    /// Its place.
    pub position: i64,
    /// What it says it follows on.
    pub previous: Option<EventHash>,
    /// What it says its hash is.
    pub hash: Option<EventHash>,
    /// All that it says, in the order in which it is hashed.
    pub fields: Vec<Option<String>>,
}

/// Where the project's chain ends; `None` before its first event.
pub async fn head(conn: &mut PgConnection, project: ProjectId) -> Result<Option<Head>> {
    sqlx::query!("select count, hash from event_heads where project_id = $1", project.0)
        .fetch_optional(conn)
        .await?
        .map(|row| Ok(Head { count: row.count, hash: row.hash.as_slice().try_into()? }))
        .transpose()
}

/// The next links after an event at this position and with this id, in the order of the chain.
pub async fn links(conn: &mut PgConnection, project: ProjectId, after: (i64, i64), limit: i64) -> Result<Vec<Link>> {
    let rows = sqlx::query!(
        r#"select id, position as "position!", previous_hash, hash,
                  array['tandem event 1',
                        project_id::text, position::text, id::text,
                        agent_id::text, number_id::text, call_id::text,
                        type, actor, request_id,
                        before::text, after::text, details::text,
                        to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                        once] as "fields!: Vec<Option<String>>"
           from event_log
           where project_id = $1 and (position, id) > ($2, $3)
           order by position, id limit $4"#,
        project.0,
        after.0,
        after.1,
        limit
    )
    .fetch_all(conn)
    .await?;
    // A hash of another length is one that somebody wrote; the verification finds that it is none.
    let hash = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
    Ok(rows
        .into_iter()
        .map(|row| Link {
            id: row.id,
            position: row.position,
            previous: hash(row.previous_hash),
            hash: hash(row.hash),
            fields: row.fields,
        })
        .collect())
}

/// The first committed events of the project that have no place in the chain.
pub async fn unchained(conn: &mut PgConnection, project: ProjectId, limit: i64) -> Result<Vec<i64>> {
    let ids = sqlx::query_scalar!(
        "select id from event_log where project_id = $1 and position is null order by id limit $2",
        project.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fields: &[Option<&str>]) -> EventHash {
        let fields: Vec<_> = fields.iter().map(|field| field.map(str::to_owned)).collect();
        EventHash::of(EventHash::START, &fields)
    }

    #[test]
    fn no_two_different_events_have_the_same_text() {
        let all = [
            hash(&[Some("a"), Some("b")]),
            hash(&[Some("b"), Some("a")]),
            hash(&[Some("a,1:b")]),
            hash(&[Some("a"), Some("b"), None]),
            hash(&[Some("a"), Some("-")]),
            hash(&[Some("a"), None]),
            hash(&[Some("a"), Some("")]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one), "{i}");
        }
    }

    #[test]
    fn a_hash_is_written_and_read() {
        let some = hash(&[Some("é")]);
        assert_eq!(some.to_string().parse(), Ok(some));
        assert_eq!(some.to_string(), to_hex(&Sha256::digest([&[0; 32][..], "1:é".as_bytes()].concat())));
        assert!("00".parse::<EventHash>().is_err());
    }
}
