-- When a provider was last asked what became of a call that nobody had told of
-- for too long, so that every such call gets its turn.
alter table calls add column asked_at timestamptz;
