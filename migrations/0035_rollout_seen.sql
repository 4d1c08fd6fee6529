-- What a number had at Twilio before a rollout is what Twilio says when it is first asked afterwards, before anything is
-- written. Our record may be older: somebody may have changed the settings since.

alter table rollout_numbers
    -- Twilio was asked since the agent was switched. If `settings` are null then, they led to us already.
    add column seen boolean not null default false;

update rollout_numbers set seen = true;

create index rollout_numbers_unseen on rollout_numbers (number_id) where not seen and state <> 'none';
