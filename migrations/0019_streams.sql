-- Lines of a transcript that are written late: a call may go on in another stream, perhaps of
-- another origin, before what was said in the one before is written.

alter table calls
    -- How many streams of ours the call has had.
    add column streams integer not null default 0 constraint calls_streams check (streams >= 0);

comment on column transcript_items.position is
    'Only the order counts. The call''s n-th stream writes from n times 100000 on, so that lines of two streams never meet.';
