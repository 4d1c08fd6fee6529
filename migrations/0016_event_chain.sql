-- Every event carries the hash of the one before it in its project, so that a log
-- that was edited, cut or added to can be told from one that was not.
--
-- An event takes its place when its transaction commits, not when it is written:
-- a deferred trigger locks the project's head, gives the event the next position
-- and moves the head on. The head is the last lock that a transaction takes and is
-- held only while it commits, so whoever logs cannot wait in a circle with whoever
-- waits for another row. Positions are therefore in the order of commits and
-- without gaps, which ids are not.

alter table event_log
    -- Of the HTTP request, job or command that caused the event.
    add column request_id text,
    -- 1, 2, 3, … within the project. Null only until the transaction commits.
    add column position bigint,
    add column previous_hash bytea,
    add column hash bytea;

-- The last event of a project's chain. It tells when the log's end was cut off.
create table event_heads (
    project_id  uuid primary key references projects,
    count       bigint not null,
    -- 32 zero bytes before the first event.
    hash        bytea not null,
    constraint event_heads_count check (count >= 0),
    constraint event_heads_hash_is_sha256 check (octet_length(hash) = 32)
) with (fillfactor = 50);


-- What is hashed: SHA-256 over the previous hash and this text of all that an event
-- says. Each field is its length in characters, a colon and its text, or `-` for
-- null. The application has the same in `store::events::chain`; it verifies with that.
create function event_hash(previous bytea, place bigint, e event_log) returns bytea language sql stable as $$
    select sha256(previous || convert_to(string_agg(coalesce(length(field) || ':' || field, '-'), ',' order by n), 'UTF8'))
    from unnest(array[
        'tandem event 1',
        e.project_id::text, place::text, e.id::text,
        e.agent_id::text, e.number_id::text, e.call_id::text,
        e.type, e.actor, e.request_id,
        e.before::text, e.after::text, e.details::text,
        to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        e.once
    ]) with ordinality as fields (field, n)
$$;


-- Chain what is there, in the order of ids.
drop trigger event_log_append_only on event_log;

do $$
declare
    e event_log;
    head event_heads;
begin
    for e in select * from event_log order by project_id, id loop
        if head.project_id is distinct from e.project_id then
            if head.project_id is not null then
                insert into event_heads select head.*;
            end if;
            head := row(e.project_id, 0, decode(repeat('00', 32), 'hex'));
        end if;
        update event_log
            set position = head.count + 1,
                previous_hash = head.hash,
                hash = event_hash(head.hash, head.count + 1, e)
            where id = e.id
            returning position, hash into head.count, head.hash;
    end loop;
    if head.project_id is not null then
        insert into event_heads select head.*;
    end if;
end;
$$;

-- Read in the order of the chain from now on.
create unique index event_log_position on event_log (project_id, position);
drop index event_log_project;
create index event_log_agent_position on event_log (agent_id, position);
drop index event_log_agent;


create function chain_event() returns trigger language plpgsql as $$
declare
    head event_heads;
begin
    select * into head from event_heads where project_id = new.project_id for update;
    if not found then
        insert into event_heads (project_id, count, hash) values (new.project_id, 0, decode(repeat('00', 32), 'hex'))
            on conflict do nothing;
        select * into strict head from event_heads where project_id = new.project_id for update;
    end if;
    update event_log
        set position = head.count + 1,
            previous_hash = head.hash,
            hash = event_hash(head.hash, head.count + 1, new)
        where id = new.id
        returning position, hash into strict head.count, head.hash;
    update event_heads set count = head.count, hash = head.hash where project_id = new.project_id;
    return null;
end;
$$;

create constraint trigger event_log_chained
    after insert on event_log deferrable initially deferred
    for each row execute function chain_event();

-- Chaining is the one change that an event sees, and the only one of a head.
create function refuse_unless_chaining() returns trigger language plpgsql as $$
begin
    -- 1 is this trigger itself; chaining, which has come from a trigger, is at least 2.
    if pg_trigger_depth() < 2 then
        raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
    end if;
    return null;
end;
$$;

create trigger event_log_append_only
    before delete or truncate on event_log
    for each statement execute function refuse_change();
create trigger event_log_changed_by_chaining
    before update on event_log
    for each statement execute function refuse_unless_chaining();
create trigger event_heads_kept
    before delete or truncate on event_heads
    for each statement execute function refuse_change();
create trigger event_heads_changed_by_chaining
    before insert or update on event_heads
    for each statement execute function refuse_unless_chaining();
