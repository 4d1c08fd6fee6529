-- What is true of a call once it is over, whichever system ran it: why it ended,
-- what it cost, how long callers waited for answers, which tools ran, what was recorded.

alter table calls
    -- The provider's own word for why the call ended; `end_reason` is ours for it,
    -- one of `EndReason` in the application.
    add column end_detail text,
    -- Whether the reason is only what can be told from outside: whoever ran the call
    -- may still say better.
    add column end_guessed boolean not null default false,
    -- Null: not known, `cost` says why.
    add column cost_microusd bigint constraint calls_cost_microusd check (cost_microusd >= 0),
    -- Of what the cost is made. The shape is `Cost` in the application.
    add column cost jsonb constraint calls_cost_is_object check (jsonb_typeof(cost) = 'object'),
    -- From the start of the last stream to a session that listens and speaks.
    add column setup_ms integer constraint calls_setup_ms check (setup_ms >= 0),
    -- How often the caller cut the agent off.
    add column interruptions integer constraint calls_interruptions check (interruptions >= 0),
    -- The mean of its turns' latency as the provider tells it, where we cannot measure.
    add column told_latency_ms integer constraint calls_told_latency_ms check (told_latency_ms >= 0),
    -- When the provider's report of the whole call took effect, once.
    add column reported_at timestamptz;

-- Until now Vapi's words stood here.
update calls
set end_detail = end_reason,
    end_reason = case end_reason when 'customer-ended-call' then 'caller_hung_up' else 'other' end
where system_type = 'vapi' and end_reason like '%-%';


-- How fast the agent answered, for every turn of the caller's in a bridged call.
create table call_turns (
    call_id          uuid not null references calls on delete cascade,
    -- When the caller was found to have stopped speaking.
    speech_ended_at  timestamptz not null,
    -- From then to the first audio of the answer that was sent.
    first_audio_ms   integer not null,
    -- From then to the first sign that the caller heard it. Null: cut off before.
    first_heard_ms   integer,
    primary key (call_id, speech_ended_at),
    constraint call_turns_in_order check (first_audio_ms >= 0 and first_heard_ms >= first_audio_ms)
);


-- What the model had done in a call: the record of it, kept as long as the call.
-- What makes a tool run once is `tool_runs`, which is forgotten sooner.
create table call_tools (
    call_id       uuid not null references calls on delete cascade,
    -- The running system's name of the function call.
    tool_call_id  text not null,
    name          text not null,
    arguments     jsonb not null default '{}',
    -- What the model was told; null: nothing is known of it.
    result        text,
    --   ok       it has a result
    --   failed   the result is an error
    --   unknown  nobody has told of a result
    outcome       text not null,
    started_at    timestamptz not null,
    duration_ms   integer,
    primary key (call_id, tool_call_id),
    constraint call_tools_outcome check (outcome in ('ok', 'failed', 'unknown')),
    constraint call_tools_duration_ms check (duration_ms >= 0)
);


-- Sound recordings. A bridged call has one for each of its streams.
create table recordings (
    id           uuid primary key,
    call_id      uuid not null references calls on delete cascade,
    --   recording  it goes on, or its origin has died and has not come back yet
    --   stored     whole, at its place
    --   partial    at its place, up to the moment at which its origin died
    --   lost       gone
    state        text not null,
    -- Where it is: a key in our storage, or a URL of Vapi's.
    key          text,
    url          text,
    started_at   timestamptz not null,
    duration_ms  bigint,
    bytes        bigint,
    constraint recordings_state check (state in ('recording', 'stored', 'partial', 'lost')),
    constraint recordings_one_place check ((key is null) <> (url is null)),
    constraint recordings_url_once unique (call_id, url)
);

create index recordings_call on recordings (call_id);
create index recordings_open on recordings (id) where state = 'recording';
