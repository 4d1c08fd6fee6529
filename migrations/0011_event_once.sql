-- Something that may happen many times a second is logged once in a while: of two
-- events with the same key only the first is kept. Most events have no key.
alter table event_log add column once text;
create unique index event_log_once on event_log (once);
