-- What a rollout waits for at Twilio: one row for each number of an agent that it switched.
create table rollout_numbers (
    rollout_id  uuid not null,
    -- No foreign keys: what was done to a number outlives it.
    number_id   uuid not null,
    agent_id    uuid not null,
    number      text not null,
    -- Where its calls went before, and with which settings at Twilio. Null: Twilio had not been asked.
    place       text,
    settings    jsonb,
    -- As in `pointings`, where it is brought about; `none`: Twilio is not told about this number.
    state       text not null default 'none',
    error_code  text,
    error       text,
    primary key (rollout_id, number_id),
    foreign key (rollout_id, agent_id) references rollout_items on delete cascade,
    constraint rollout_numbers_place check (place in ('edge', 'vapi')),
    constraint rollout_numbers_state check (state in ('none', 'pending', 'settled', 'conflict', 'failed'))
);

create index rollout_numbers_pending on rollout_numbers (rollout_id) where state = 'pending';
