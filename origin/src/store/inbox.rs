//! The inbox: which events have taken effect.

use shared::{CallSid, VapiCallId};
use sqlx::PgConnection;

use super::Result;

/// An event as it is noted.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// What the sender repeats.
    pub delivery_id: &'a str,
    /// `twilio` or `vapi`.
    pub source: &'a str,
    /// The sender's word for what it is.
    pub kind: &'a str,
    /// SHA-256 of the body.
    pub body_sha256: &'a [u8],
    /// The call's name at Twilio.
    pub call_sid: Option<&'a CallSid>,
    /// The call's name at Vapi.
    pub vapi_call_id: Option<&'a VapiCallId>,
}

/// Notes an event. `None`: it is new. Else the SHA-256 of the body that came first.
///
/// Waits for another transaction that notes the same event, and is the first if that one fails.
pub async fn receive(conn: &mut PgConnection, entry: &NewEntry<'_>) -> Result<Option<Vec<u8>>> {
    let inserted = sqlx::query!(
        "insert into webhook_inbox (delivery_id, source, type, body_sha256, call_sid, vapi_call_id)
         values ($1, $2, $3, $4, $5, $6) on conflict (delivery_id) do nothing",
        entry.delivery_id,
        entry.source,
        entry.kind,
        entry.body_sha256,
        entry.call_sid.map(CallSid::as_str),
        entry.vapi_call_id.map(VapiCallId::as_str)
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if inserted == 1 {
        return Ok(None);
    }
    let kept = sqlx::query_scalar!("select body_sha256 from webhook_inbox where delivery_id = $1", entry.delivery_id)
        .fetch_one(conn)
        .await?;
    Ok(Some(kept))
}

/// Notes what became of an event, in the transaction that it took effect in. Of one that waits, `body` is kept.
pub async fn processed(conn: &mut PgConnection, delivery_id: &str, state: &str, body: Option<&[u8]>) -> Result<()> {
    sqlx::query!(
        "update webhook_inbox set state = $2, processed_at = clock_timestamp(), body = $3 where delivery_id = $1",
        delivery_id,
        state,
        body
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Up to `limit` events that have waited for their call and need not wait any longer, in the order that they came in.
pub async fn ripe(conn: &mut PgConnection, limit: i64) -> Result<Vec<String>> {
    let ids = sqlx::query_scalar!(
        "select delivery_id from webhook_inbox i
         where body is not null
           and exists (select from calls c where c.call_sid = i.call_sid or c.vapi_call_id = i.vapi_call_id)
         order by received_at limit $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The sender's word for what it is.
    pub kind: String,
    /// `twilio` or `vapi`.
    pub source: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Takes an event that waits, and keeps others from it until the transaction ends. `None`: it waits no longer.
pub async fn take(conn: &mut PgConnection, delivery_id: &str) -> Result<Option<Waiting>> {
    let waiting = sqlx::query_as!(
        Waiting,
        r#"select type as kind, source, body as "body!" from webhook_inbox
           where delivery_id = $1 and body is not null for update skip locked"#,
        delivery_id
    )
    .fetch_optional(conn)
    .await?;
    Ok(waiting)
}

/// Forgets the bodies of events that have waited for `hours`; tells how many.
pub async fn give_up(conn: &mut PgConnection, hours: i32) -> Result<u64> {
    let done = sqlx::query!(
        "update webhook_inbox set body = null
         where body is not null and received_at < now() - make_interval(hours => $1)",
        hours
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes up to `limit` entries that are older than `days`; tells how many.
pub async fn prune(conn: &mut PgConnection, days: i32, limit: i64) -> Result<u64> {
    let done = sqlx::query!(
        "delete from webhook_inbox where delivery_id in
             (select delivery_id from webhook_inbox where received_at < now() - make_interval(days => $1) limit $2)",
        days,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
