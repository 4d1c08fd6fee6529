-- The Twilio account that a call belongs to: a sub-account's calls are found under its
-- own SID only. Null: nobody has said yet.
alter table calls add column account_sid text
    constraint calls_account_sid_form check (account_sid ~ '^AC[A-Za-z0-9]{1,62}$');
