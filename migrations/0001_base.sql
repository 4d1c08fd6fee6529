-- The base schema: who owns what, and what happened on the phone.
--
-- Ids are UUIDv7, made by the application, so that they sort by time. Names of
-- constraints are part of the contract: the application maps them to API errors.


-- A tenant. Everything else belongs to exactly one project.
create table projects (
    id          uuid primary key,
    name        text not null constraint projects_name_unique unique,
    created_at  timestamptz not null default now(),
    constraint projects_name_not_blank check (name ~ '\S')
);


-- What a program presents to the API. Only the SHA-256 of a key is kept; the key
-- is random (256 bits), so no slow hash is needed to protect it.
create table api_keys (
    id            uuid primary key,
    project_id    uuid not null references projects,
    role          text not null,
    hash          bytea not null constraint api_keys_hash_unique unique,
    -- The first characters of the key, by which people tell keys apart.
    prefix        text not null,
    created_at    timestamptz not null default now(),
    -- Kept to the minute only, so that reading does not mean writing.
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    constraint api_keys_role check (role in ('read', 'write')),
    constraint api_keys_hash_is_sha256 check (octet_length(hash) = 32)
);

create index api_keys_project on api_keys (project_id);


-- A voice assistant of a project.
create table agents (
    id                 uuid primary key,
    project_id         uuid not null references projects,
    name               text not null,
    instructions       text not null default '',
    -- What the agent says first. Null: it waits for the caller.
    greeting           text,
    -- How the agent runs on OpenAI Realtime: model, voice, speed, turn detection,
    -- noise reduction, transcription. The shape is `RealtimeSettings` in the
    -- application. Null: not configured for it.
    realtime           jsonb,
    -- The agent's assistant at Vapi. Null: it has none.
    vapi_assistant_id  text constraint agents_vapi_assistant_id_unique unique,
    -- Where a call goes that the agent cannot take.
    fallback_number    text,
    created_at         timestamptz not null default now(),
    -- Lets other tables require the same project, see phone_numbers_agent.
    constraint agents_project_id_unique unique (project_id, id),
    constraint agents_name_unique unique (project_id, name),
    constraint agents_name_not_blank check (name ~ '\S'),
    constraint agents_vapi_assistant_id_form check (vapi_assistant_id ~ '^[A-Za-z0-9_-]{1,128}$'),
    constraint agents_realtime_is_object check (jsonb_typeof(realtime) = 'object'),
    constraint agents_fallback_number_e164 check (fallback_number ~ '^\+[1-9][0-9]{1,14}$')
);


create table phone_numbers (
    id                    uuid primary key,
    project_id            uuid not null references projects,
    number                text not null constraint phone_numbers_number_unique unique,
    -- Null: the number is ours but no agent answers it.
    agent_id              uuid,
    -- How a call of a Vapi agent that arrives at the edge reaches Vapi:
    --   none      it should not arrive; Twilio sends the number to Vapi directly
    --   bypass    the origin creates the call at Vapi and returns Vapi's TwiML
    --   redirect  TwiML <Redirect> to Vapi's inbound URL (undocumented at Vapi)
    vapi_handover         text not null default 'none',
    -- The number's id at Vapi; the bypass names the number by it.
    vapi_phone_number_id  text,
    -- Twilio's IncomingPhoneNumber, when we manage the number there.
    twilio_sid            text,
    created_at            timestamptz not null default now(),
    -- A number can only be answered by an agent of its own project.
    constraint phone_numbers_agent foreign key (project_id, agent_id) references agents (project_id, id),
    constraint phone_numbers_e164 check (number ~ '^\+[1-9][0-9]{1,14}$'),
    constraint phone_numbers_vapi_handover check (vapi_handover in ('none', 'bypass', 'redirect')),
    constraint phone_numbers_bypass_has_id check (vapi_handover <> 'bypass' or vapi_phone_number_id is not null)
);

create index phone_numbers_agent_id on phone_numbers (agent_id);
create index phone_numbers_project on phone_numbers (project_id);


-- A function that an agent may call during a conversation, whichever system runs it.
create table tools (
    id           uuid primary key,
    project_id   uuid not null references projects,
    name         text not null,
    description  text not null default '',
    -- JSON Schema of the arguments.
    parameters   jsonb not null default '{"type": "object", "properties": {}}',
    -- Exactly one of: our own implementation, or a customer's HTTP server.
    builtin      text,
    target_url   text,
    -- Signs the requests to the target. Kept readable, since signing needs it.
    secret       text,
    timeout_ms   integer not null default 10000,
    created_at   timestamptz not null default now(),
    constraint tools_project_id_unique unique (project_id, id),
    constraint tools_name_unique unique (project_id, name),
    -- What OpenAI accepts as the name of a function.
    constraint tools_name_form check (name ~ '^[A-Za-z0-9_-]{1,64}$'),
    constraint tools_parameters_is_object check (jsonb_typeof(parameters) = 'object'),
    constraint tools_builtin check (builtin in ('end_call', 'transfer_call', 'send_dtmf')),
    constraint tools_one_target check ((builtin is null) <> (target_url is null)),
    constraint tools_target_is_signed check (target_url is null or secret is not null),
    constraint tools_timeout_ms check (timeout_ms between 100 and 60000)
);


create table agent_tools (
    project_id  uuid not null,
    agent_id    uuid not null,
    tool_id     uuid not null,
    primary key (agent_id, tool_id),
    foreign key (project_id, agent_id) references agents (project_id, id) on delete cascade,
    foreign key (project_id, tool_id) references tools (project_id, id) on delete cascade
);


-- One phone call; the same record whichever system ran it.
create table calls (
    id            uuid primary key,
    project_id    uuid not null references projects,
    agent_id      uuid not null references agents,
    number_id     uuid references phone_numbers,
    -- The names of the call at Twilio and at Vapi. A call handed to Vapi has both.
    call_sid      text constraint calls_call_sid_unique unique,
    vapi_call_id  text constraint calls_vapi_call_id_unique unique,
    -- As the provider gave them: a caller may be "anonymous" or a SIP address.
    from_number   text,
    to_number     text,
    status        text not null default 'ringing',
    started_at    timestamptz not null default now(),
    answered_at   timestamptz,
    ended_at      timestamptz,
    -- Why the call ended, in our words.
    end_reason    text,
    -- How often the call lost its stream and was taken up again.
    resumes       integer not null default 0,
    -- Tokens, seconds and the like, summed over the call, in the provider's terms.
    usage         jsonb not null default '{}',
    constraint calls_has_a_name check (call_sid is not null or vapi_call_id is not null),
    constraint calls_call_sid_form check (call_sid ~ '^CA[A-Za-z0-9]{1,62}$'),
    constraint calls_vapi_call_id_form check (vapi_call_id ~ '^[A-Za-z0-9_-]{1,128}$'),
    constraint calls_status check (status in ('ringing', 'in-progress', 'ended')),
    -- Whoever ends a call says when and why.
    constraint calls_end check (
        (status = 'ended') = (ended_at is not null) and (status = 'ended') = (end_reason is not null)
    ),
    constraint calls_resumes check (resumes >= 0),
    constraint calls_usage_is_object check (jsonb_typeof(usage) = 'object')
);

create index calls_project on calls (project_id, id desc);
create index calls_agent on calls (agent_id, id desc);
create index calls_open on calls (id) where status <> 'ended';


-- What was said, in order. An item may be written again: a transcript arrives
-- after the audio, and an interruption shortens what was heard.
create table transcript_items (
    call_id      uuid not null references calls on delete cascade,
    position     integer not null,
    role         text not null,
    text         text not null,
    -- The item's name in the session that made it.
    item_id      text,
    -- How much of the assistant's audio was really played to the caller.
    heard_ms     integer,
    interrupted  boolean not null default false,
    at           timestamptz not null default now(),
    primary key (call_id, position),
    constraint transcript_items_position check (position >= 0),
    constraint transcript_items_role check (role in ('caller', 'assistant', 'tool')),
    constraint transcript_items_heard_ms check (heard_ms >= 0)
);


-- The audit log: who changed what, and what we decided about webhooks and calls.
create table event_log (
    id          bigint generated always as identity primary key,
    project_id  uuid not null references projects,
    -- No foreign keys: an event outlives what it tells of.
    agent_id    uuid,
    number_id   uuid,
    call_id     uuid,
    type        text not null,
    -- Who did it: `api-key:<prefix>`, `edge`, `origin`, `command`.
    actor       text not null,
    -- The state that the event changed, and what it became.
    before      jsonb,
    after       jsonb,
    -- Anything else worth knowing, such as a reason.
    details     jsonb not null default '{}',
    -- The moment itself: a transaction may have waited for a lock since it began.
    at          timestamptz not null default clock_timestamp()
);

create index event_log_project on event_log (project_id, id desc);
create index event_log_agent on event_log (agent_id, id desc);

-- What is logged stays logged, also against our own mistakes.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end;
$$;

create trigger event_log_append_only
    before update or delete or truncate on event_log
    for each statement execute function refuse_change();


-- A stream token works once. Rows are needed only until the token would be
-- refused as expired anyway.
create table used_stream_tokens (
    signature_hash  bytea primary key,
    expires_at      timestamptz not null
);

create index used_stream_tokens_expiry on used_stream_tokens (expires_at);
