-- Replication that can be checked: since when a change waits, and whether what
-- was noted of the edge's store is still to be believed.

-- When a row took its revision.
alter table agents add column revised_at timestamptz not null default now();
alter table phone_numbers add column revised_at timestamptz not null default now();

create or replace function take_revision() returns trigger language plpgsql as $$
begin
    new.revision := nextval('route_revision');
    -- The moment itself: a transaction may have waited for a lock since it began.
    new.revised_at := clock_timestamp();
    return new;
end;
$$;

create or replace view routes as
    select
        'number:' || n.number as key,
        a.id as agent_id,
        greatest(n.revision, a.revision) as revision,
        jsonb_build_object(
            'revision', greatest(n.revision, a.revision),
            'number', n.number,
            'numberSystemType', n.system_type,
            'agentId', a.id,
            'agentSystemType', a.system_type,
            'vapiHandover', n.vapi_handover,
            'fallbackNumber', a.fallback_number
        ) as value,
        greatest(n.revised_at, a.revised_at) as changed_at
    from phone_numbers n
    join agents a on a.id = n.agent_id
    union all
    select
        'assistant:' || a.vapi_assistant_id,
        a.id,
        a.revision,
        jsonb_build_object(
            'revision', a.revision,
            'agentId', a.id,
            'agentSystemType', a.system_type,
            'switchedAt', to_char(a.switched_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        ),
        a.revised_at
    from agents a
    where a.vapi_assistant_id is not null;

alter table replica
    -- The run that is about to write the key. Another that overtakes it takes the
    -- claim away; whoever then finds its claim gone does not know which of the
    -- two values came last, and the key is written once more.
    add column claim uuid,
    -- When the key was found to hold something else than what was noted.
    add column doubted_at timestamptz;
