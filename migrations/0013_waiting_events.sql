-- An event that came before its call was known is kept until the call is, so that it
-- can still take effect. Its body goes as soon as it has, or after a day.

alter table webhook_inbox
    -- Only of an event that tells of no call of ours, yet.
    add column body bytea,
    add constraint webhook_inbox_body_waits check (body is null or state in ('received', 'unknown'));

create index webhook_inbox_waiting on webhook_inbox (received_at) where body is not null;
