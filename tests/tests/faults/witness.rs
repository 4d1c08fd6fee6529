//! What the database saw: besides the rows themselves, every write to a call, noted by triggers in the transaction
//! that makes it. A second effect that leaves the same row behind is found out by that.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection, query, query_as, query_scalar};
use time::OffsetDateTime;

use crate::plan::Plan;
use crate::story::Story;
use crate::verdict::{Seen, SeenCall};

const TRIGGERS: &str = r"
    create table witness (call_id uuid not null, what text not null);

    create function note_usage() returns trigger language plpgsql as $$
    begin
        insert into witness values (new.id, 'usage');
        return null;
    end;
    $$;
    create trigger note_usage after update of usage on calls for each row execute function note_usage();

    create function note_status() returns trigger language plpgsql as $$
    begin
        insert into witness values (new.id, format('status %s > %s', old.status, new.status));
        return null;
    end;
    $$;
    create trigger note_status after update of status on calls for each row execute function note_status();

    create function note_line() returns trigger language plpgsql as $$
    begin
        insert into witness values (new.call_id, format('line %s', new.position));
        return null;
    end;
    $$;
    create trigger note_line after insert or update on transcript_items for each row execute function note_line();
";

/// Id, call SID, Vapi's id, system, status, reason, usage.
type CallRow = (String, Option<String>, Option<String>, String, String, Option<String>, Value);

/// A connection to the database of the stack.
#[derive(Debug)]
pub(crate) struct Witness(PgConnection);

impl Witness {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        Ok(Self(PgConnection::connect(url).await.context("the database is there")?))
    }

    /// Sets the triggers, and records the plan's bridged calls as the bridge does when a stream opens.
    pub(crate) async fn prepare(&mut self, plan: &Plan, agent_id: &str) -> anyhow::Result<()> {
        self.0.execute(TRIGGERS).await?;
        // Twilio has long been told of the switch: what Vapi still gets is nobody's.
        self.0.execute("delete from pointings").await?;
        for call in plan.calls.iter().filter(|call| matches!(call.story, Story::Bridged { .. })) {
            query(
                "insert into calls (id, project_id, agent_id, call_sid, system_type, started_at)
                 select gen_random_uuid(), project_id, id, $2, 'openai-realtime', $3 from agents where id = $1::uuid",
            )
            .bind(agent_id)
            .bind(&call.sid)
            .bind(call.began)
            .execute(&mut self.0)
            .await?;
        }
        Ok(())
    }

    /// An agent's assistant at Vapi.
    pub(crate) async fn assistant_id(&mut self, agent_id: &str) -> anyhow::Result<String> {
        let sql = "select vapi_assistant_id from agents where id = $1::uuid and vapi_assistant_id is not null";
        Ok(query_scalar(sql).bind(agent_id).fetch_one(&mut self.0).await?)
    }

    /// When an agent was switched.
    pub(crate) async fn switched_at(&mut self, agent_id: &str) -> anyhow::Result<OffsetDateTime> {
        let sql = "select switched_at from agents where id = $1::uuid and switched_at is not null";
        Ok(query_scalar(sql).bind(agent_id).fetch_one(&mut self.0).await?)
    }

    /// How many events have been processed.
    pub(crate) async fn processed(&mut self) -> anyhow::Result<usize> {
        let count: i64 =
            query_scalar("select count(*) from webhook_inbox where state <> 'received'").fetch_one(&mut self.0).await?;
        Ok(usize::try_from(count)?)
    }

    /// All there is to see.
    pub(crate) async fn look(&mut self) -> anyhow::Result<Seen> {
        let conn = &mut self.0;
        let inbox = query_as("select delivery_id, state from webhook_inbox").fetch_all(&mut *conn).await?;
        let mut transcripts: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        let lines: Vec<(String, String, String)> =
            query_as("select call_id::text, role, text from transcript_items order by call_id, position")
                .fetch_all(&mut *conn)
                .await?;
        for (call, role, text) in lines {
            transcripts.entry(call).or_default().push((role, text));
        }
        let mut writes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let noted: Vec<(String, String)> =
            query_as("select call_id::text, what from witness").fetch_all(&mut *conn).await?;
        for (call, what) in noted {
            writes.entry(call).or_default().push(what);
        }
        let rows: Vec<CallRow> = query_as(
            "select id::text, call_sid, vapi_call_id, system_type, status,
                    case end_detail when 'completed' then end_reason else coalesce(end_detail, end_reason) end, usage
             from calls order by id",
        )
        .fetch_all(&mut *conn)
        .await?;
        let calls = rows.into_iter().map(|(id, call_sid, vapi_id, system, status, reason, usage)| SeenCall {
            call_sid,
            vapi_id,
            system,
            status,
            reason,
            usage,
            transcript: transcripts.remove(&id).unwrap_or_default(),
            writes: writes.remove(&id).unwrap_or_default(),
        });
        let skips: Vec<(Option<String>, Option<String>, i64)> = query_as(
            "select details->>'type', date_trunc('minute', at)::text, count(*) from event_log
             where type = 'webhook.skipped' group by 1, 2",
        )
        .fetch_all(&mut *conn)
        .await?;
        let skips = skips.into_iter().map(|(kind, minute, count)| {
            let key = (kind.unwrap_or_default(), minute.unwrap_or_default());
            Ok((key, usize::try_from(count)?))
        });
        Ok(Seen { inbox, calls: calls.collect(), skips: skips.collect::<anyhow::Result<_>>()? })
    }
}
