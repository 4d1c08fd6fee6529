-- How often in a row a call lost a stream that had only just begun. A stream that
-- lasted begins the count anew: a long call may lose more than one that fails.
alter table calls add column failures integer not null default 0
    constraint calls_failures check (failures >= 0);
