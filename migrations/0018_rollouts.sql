-- Rollouts: batches of switches, stage by stage, that can be rolled back exactly.

create table rollouts (
    id           uuid primary key,
    -- Null: its agents are of several projects, so only the command line sees it.
    project_id   uuid references projects,
    -- Where its agents go.
    target       text not null,
    -- What was asked for. The shape is `Scope` in the application.
    scope        jsonb not null,
    -- `pilot` or a percentage such as `25%`, in order; each contains the ones before.
    stages       text[] not null,
    -- When calls are compared, how, and what follows. The shape is `GuardSettings`.
    guard        jsonb not null,
    --   planned       nothing is changed yet
    --   running       agents of the stages begun are being switched
    --   waiting       they are; a person decides whether to advance
    --   paused        no further agent is switched until it is started again
    --   completed     the last stage is done
    --   rolling_back  what was switched is being switched back
    --   rolled_back   it is
    state        text not null default 'planned',
    -- How many stages were begun.
    stage        integer not null default 0,
    -- Why it is paused or rolled back: `person` or `guard`.
    reason       text,
    -- The guard counts calls from then on. Null: from each agent's switch.
    guard_since  timestamptz,
    created_by   text not null,
    created_at   timestamptz not null default now(),
    changed_at   timestamptz not null default now(),
    constraint rollouts_target check (target in ('vapi', 'openai-realtime')),
    constraint rollouts_state check (
        state in ('planned', 'running', 'waiting', 'paused', 'completed', 'rolling_back', 'rolled_back')
    ),
    constraint rollouts_stage check (stage between 0 and cardinality(stages)),
    constraint rollouts_has_stages check (cardinality(stages) > 0),
    constraint rollouts_reason check (reason in ('person', 'guard'))
);

create index rollouts_project on rollouts (project_id, id desc);
create index rollouts_active on rollouts (id) where state not in ('planned', 'rolled_back');


-- One row for each agent of a rollout.
create table rollout_items (
    rollout_id   uuid not null references rollouts on delete cascade,
    -- No foreign key: what was done to an agent outlives it.
    agent_id     uuid not null,
    project_id   uuid not null references projects,
    -- The stage that it belongs to, counted from 1.
    stage        integer not null,
    -- Its place in the order of switching.
    position     integer not null,
    --   planned         not switched yet
    --   switched        done; `before` says from what
    --   unchanged       it was on the target already, so a rollback leaves it alone
    --   failed          not switched; `error` says why
    --   restored        switched back to what was before
    --   restore_failed  could not be switched back
    state        text not null default 'planned',
    -- The agent's system and each number's, when it was switched. The shape is `Image`.
    before       jsonb,
    error_code   text,
    error        text,
    switched_at  timestamptz,
    restored_at  timestamptz,
    primary key (rollout_id, agent_id),
    constraint rollout_items_position unique (rollout_id, position),
    constraint rollout_items_stage check (stage > 0),
    constraint rollout_items_state check (
        state in ('planned', 'switched', 'unchanged', 'failed', 'restored', 'restore_failed')
    ),
    -- What cannot be undone must not be done.
    constraint rollout_items_before check (state not in ('switched', 'restored', 'restore_failed') or before is not null),
    constraint rollout_items_error check ((state in ('failed', 'restore_failed')) = (error_code is not null))
);

create index rollout_items_todo on rollout_items (rollout_id, state, position);
create index rollout_items_agent on rollout_items (agent_id);
