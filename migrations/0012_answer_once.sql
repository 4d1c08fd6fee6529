-- A call's questions are answered once, however often they are asked.

alter table calls
    -- When Vapi was last asked to take the call. Whoever sets this asks; others wait
    -- for what comes of it. It is set before the request, so that a call that Vapi
    -- made and nobody heard of is known to be possible.
    add column handover_at timestamptz,
    -- Twilio's name for the question that the call was last taken up again for, and
    -- when that was: the same question gets the same answer and counts once.
    add column resume_delivery text,
    add column resumed_at timestamptz;
