-- What was received and what was done, so that nothing that is repeated is done
-- twice. Rows go after a while, see `origin/src/inbox.rs`.


-- One row for each event of Twilio or Vapi. It is written in the transaction
-- that the event takes effect in: a row that can be seen tells of an event that
-- counts, once. The body itself is not kept.
create table webhook_inbox (
    -- What the sender repeats; the edge's header `Tandem-Delivery`.
    delivery_id   text primary key,
    source        text not null,
    -- Twilio's path or Vapi's message type.
    type          text not null,
    body_sha256   bytea not null,
    -- `received` is never seen from outside the transaction.
    state         text not null default 'received',
    call_sid      text,
    vapi_call_id  text,
    received_at   timestamptz not null default now(),
    processed_at  timestamptz,
    constraint webhook_inbox_source check (source in ('twilio', 'vapi')),
    constraint webhook_inbox_body_sha256 check (octet_length(body_sha256) = 32),
    --   applied  it changed what it tells of, or had nothing to change
    --   skipped  its agent has left the system, and the call began after that
    --   unknown  it tells of no call or agent of ours
    constraint webhook_inbox_state check (state in ('received', 'applied', 'skipped', 'unknown')),
    constraint webhook_inbox_processed check ((state = 'received') = (processed_at is null))
);

create index webhook_inbox_received_at on webhook_inbox (received_at);
create index webhook_inbox_call_sid on webhook_inbox (call_sid) where call_sid is not null;
create index webhook_inbox_vapi_call_id on webhook_inbox (vapi_call_id) where vapi_call_id is not null;


-- One row for each run of a tool. Both names are the running system's: a model
-- that asks again, or a sender that repeats, gets what came of the first run.
create table tool_runs (
    call_id       text not null,
    tool_call_id  text not null,
    agent_id      uuid not null,
    name          text not null,
    started_at    timestamptz not null default now(),
    -- A run without an outcome by then was cut off; whether it took effect is not known.
    lost_at       timestamptz not null,
    finished_at   timestamptz,
    -- Exactly one of the two, once it is finished.
    result        text,
    error         text,
    primary key (call_id, tool_call_id),
    constraint tool_runs_outcome check (
        (finished_at is null and result is null and error is null)
        or (finished_at is not null and (result is null) <> (error is null))
    )
);

create index tool_runs_started_at on tool_runs (started_at);
