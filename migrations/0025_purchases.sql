-- Buying numbers. Twilio takes no idempotency key, so the intent to buy one exact number is kept before Twilio is asked:
-- whoever goes on after a crash first looks whether the account has the number already.

create table purchases (
    id             uuid primary key,
    project_id     uuid not null references projects,
    -- Who will answer it.
    agent_id       uuid not null,
    number         text not null,
    -- Who asked for it, as in the log.
    actor          text not null,
    --   intended  Twilio is still to be asked, or its answer never came
    --   bought    the number is ours, with a record of its own
    --   failed    it is not ours
    state          text not null default 'intended',
    -- Just before Twilio was first asked: from then on, a number that the account has is the one that was bought.
    asked_at       timestamptz,
    number_id      uuid references phone_numbers on delete set null,
    -- Failed attempts, when the next one is due, and why the last one failed.
    attempts       integer not null default 0,
    next_at        timestamptz not null default now(),
    error_code     text,
    error          text,
    -- Somebody works on it until then.
    claimed_until  timestamptz,
    created_at     timestamptz not null default now(),
    finished_at    timestamptz,
    constraint purchases_agent foreign key (project_id, agent_id) references agents (project_id, id),
    constraint purchases_e164 check (number ~ '^\+[1-9][0-9]{1,14}$'),
    constraint purchases_state check (state in ('intended', 'bought', 'failed')),
    constraint purchases_finished check ((state = 'intended') = (finished_at is null))
);

-- One number is bought once at a time, whoever wants it.
create unique index purchases_one_open on purchases (number) where state = 'intended';
create index purchases_due on purchases (next_at) where state = 'intended';
create index purchases_project on purchases (project_id, id desc);


alter table pointings
    -- What the last check found to differ between our record, Twilio and Vapi: a list. Null: never checked.
    add column drift jsonb,
    add column checked_at timestamptz;
