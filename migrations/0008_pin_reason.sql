-- Why a call is not on the system that its agent was on when it began.
--
-- A call belongs to the system that it began on, unless that system cannot have
-- it: then it is handed on, and this says why. While the reason is there and the
-- pin is still OpenAI Realtime's, the call waits to be handed on.
alter table calls
    add column pin_reason text,
    add constraint calls_pin_reason check (pin_reason ~ '^[a-z_]{1,64}$');
