-- Giving a number back, in steps that are seen.

-- Since when the number is being given back: from then on nobody gets it any more. Null: it is not.
alter table phone_numbers add column releasing_since timestamptz;


-- A purchase outlives its agent. While one is open its agent is not deleted, which the application sees to.
alter table purchases drop constraint purchases_agent;
