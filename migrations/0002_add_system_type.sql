-- Which voice system runs an agent, answers a number, ran a call.
--
-- Until now there was only Vapi, so every row from before is Vapi's: that is the
-- default. Adding a column with a constant default does not rewrite the tables.

alter table agents
    add column system_type text not null default 'vapi'
        constraint agents_system_type check (system_type in ('vapi', 'openai-realtime')),
    -- When the type last changed. Calls from before it belong to the other system.
    add column switched_at timestamptz;

-- A number has a type of its own, because Twilio asks by number. Switching an
-- agent keeps both equal; where they differ, calls are refused as `cross_system`.
alter table phone_numbers
    add column system_type text not null default 'vapi'
        constraint phone_numbers_system_type check (system_type in ('vapi', 'openai-realtime'));

-- The pin: a call belongs to the system that it began on, for good.
alter table calls
    add column system_type text not null default 'vapi'
        constraint calls_system_type check (system_type in ('vapi', 'openai-realtime'));

-- Only the calls of the past may be assumed to be Vapi's. A new one is pinned explicitly.
alter table calls alter column system_type drop default;
