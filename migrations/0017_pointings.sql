-- Where Twilio sends a number's calls, and how it is brought to do so.

-- Never used: what Twilio knows of a number stands below.
alter table phone_numbers drop column twilio_sid;


-- One row for each number that Twilio is told about. It is no part of the number's row, whose every change is
-- replicated to the edge.
create table pointings (
    number_id      uuid primary key references phone_numbers on delete cascade,
    -- Twilio's names of the number. Null: not looked up yet.
    account_sid    text,
    twilio_sid     text,
    -- Where its calls are to go:
    --   edge  to us: the number's calls are bridged, or handed on by us
    --   vapi  straight to Vapi, with the settings that Twilio had before it was first told otherwise
    place          text not null,
    -- Exact settings to bring about instead of those that follow from the place: a before-image.
    image          jsonb,
    --   pending   to be done, or tried again
    --   settled   Twilio said so when it was last asked
    --   conflict  somebody else has changed the settings; nothing is overwritten
    --   failed    Twilio or Vapi refused for good
    state          text not null default 'pending',
    -- Counted up with every request, so that the end of an earlier one does not settle a later one.
    request        bigint not null default 1,
    requested_at   timestamptz not null default now(),
    -- When it last became settled.
    settled_at     timestamptz,
    -- The settings that calls reach Vapi with. Null: there have been none.
    remembered     jsonb,
    -- Settings that Twilio may be found with without anybody else having changed them: those last seen, and those
    -- that a request whose answer never came may have set. Null: Twilio was never asked.
    ours           jsonb,
    -- The assistant that answered there. Null: not known.
    assistant_id   text,
    -- Vapi was asked to save the number, which may have set it to Vapi at Twilio.
    vapi_saved     boolean not null default false,
    -- What Twilio said last.
    found          jsonb,
    found_at       timestamptz,
    -- Failed attempts of this request, when the next one is due, and why the last one failed.
    attempts       integer not null default 0,
    next_at        timestamptz not null default now(),
    error_code     text,
    error          text,
    -- Somebody works on it until then.
    claimed_until  timestamptz,
    constraint pointings_place check (place in ('edge', 'vapi')),
    constraint pointings_state check (state in ('pending', 'settled', 'conflict', 'failed')),
    constraint pointings_settled check (state <> 'settled' or settled_at is not null),
    constraint pointings_account_sid_form check (account_sid ~ '^AC[A-Za-z0-9]{1,62}$'),
    constraint pointings_twilio_sid_form check (twilio_sid ~ '^PN[A-Za-z0-9]{1,62}$')
);

create index pointings_pending on pointings (next_at) where state = 'pending';
