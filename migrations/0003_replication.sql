-- Routes: what the edge must know, projected from agents and phone numbers, and
-- a note of what it was sent.
--
-- The rule of revisions. Every change of an agent or a number takes a new
-- revision from one sequence. A route's revision is the greatest of the rows it
-- is made of. So that a route's revisions grow in the order of commits, **whoever
-- changes a number locks its agent first** (both agents, in the order of their
-- ids, when a number moves). Two changes of one route then cannot overlap.
--
-- Replication is state-based: it compares `routes` with `replica` and sends what
-- differs. No change can be lost on the way, as nothing but the tables is read.

create sequence route_revision;

alter table agents
    add column revision bigint not null default nextval('route_revision');

alter table phone_numbers
    add column revision bigint not null default nextval('route_revision');

create function take_revision() returns trigger language plpgsql as $$
begin
    new.revision := nextval('route_revision');
    return new;
end;
$$;

-- On insert too, so that nobody can choose a revision.
create trigger agents_inserted before insert on agents
    for each row execute function take_revision();
create trigger agents_changed before update on agents
    for each row when (old.* is distinct from new.*) execute function take_revision();

create trigger phone_numbers_inserted before insert on phone_numbers
    for each row execute function take_revision();
create trigger phone_numbers_changed before update on phone_numbers
    for each row when (old.* is distinct from new.*) execute function take_revision();


-- One row for each key of the edge's store, exactly as the edge reads it (the
-- types in `shared`). A number that no agent answers has no route: the edge asks
-- the origin about it, which refuses the call.
create view routes as
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
        ) as value
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
        )
    from agents a
    where a.vapi_assistant_id is not null;


-- What the edge's store holds, as far as we know. A row is made before a key is
-- first written and goes after the key was deleted, so a crash in between never
-- leaves a key out there that nobody remembers.
create table replica (
    key            text primary key,
    -- The revision last written. 0: being written for the first time.
    revision       bigint not null default 0,
    replicated_at  timestamptz
);
