-- The API: requests that take effect once, and changes that overwrite nobody's.

-- What a `POST` with an `Idempotency-Key` was answered. The row is written in the
-- transaction that does the work, so whoever sees it knows that the work was done;
-- another request with the same key waits for that transaction. Rows go after a day.
create table idempotency_keys (
    project_id   uuid not null references projects,
    path         text not null,
    key          text not null,
    body_sha256  bytea not null,
    -- The shape is `Answer` in the application. Null is never seen from outside the
    -- transaction. Secrets that were shown once are not in it.
    answer       jsonb,
    claimed_at   timestamptz not null default now(),
    primary key (project_id, path, key),
    constraint idempotency_keys_body_sha256 check (octet_length(body_sha256) = 32)
);

create index idempotency_keys_claimed_at on idempotency_keys (claimed_at);


-- Counts the changes of a row, so that a change can name what it means to change.
-- Agents and numbers have theirs from the sequence of routes.
create function count_revision() returns trigger language plpgsql as $$
begin
    new.revision := old.revision + 1;
    return new;
end;
$$;

alter table projects add column revision bigint not null default 1;
alter table tools add column revision bigint not null default 1;

create trigger projects_changed before update on projects
    for each row when (old.* is distinct from new.*) execute function count_revision();
create trigger tools_changed before update on tools
    for each row when (old.* is distinct from new.*) execute function count_revision();
