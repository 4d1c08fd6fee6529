-- Tools that act on the call itself, and tools that run once for what they are about.

alter table tool_runs
    -- What the tool's owner says makes two calls of it the same, hashed; within one call. Null: nothing, or the run
    -- certainly had no effect, so that the same may be tried again.
    add column business_key text;

create unique index tool_runs_business_key on tool_runs (call_id, name, business_key) where business_key is not null;


-- What a call does outside of its streams because its agent wants it: a transfer,
-- keys to press. Twilio asks for it when the stream is over, and comes back.
create table call_steps (
    call_id  uuid not null references calls on delete cascade,
    -- Counted from 1 in a call.
    no       integer not null,
    -- The shape is `Step` in the application.
    step     jsonb not null,
    -- What came of it, one word. Null: it is to be done, or under way.
    outcome  text,
    at       timestamptz not null default now(),
    primary key (call_id, no),
    constraint call_steps_no check (no > 0),
    constraint call_steps_step_is_object check (jsonb_typeof(step) = 'object')
);
