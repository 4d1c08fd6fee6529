-- Import from Vapi: what came from there, so that a second import knows what the
-- first one did and what people have changed since.

alter table tools
    -- The name that the model sees and the target is told, when several tools of a
    -- project share it. Null: `name`.
    add column function_name text
        constraint tools_function_name_form check (function_name ~ '^[A-Za-z0-9_-]{1,64}$'),
    -- How it runs, beside its target: static arguments, messages, destinations of
    -- transfers. The shape is `ToolSettings` in the application.
    add column settings jsonb not null default '{}'
        constraint tools_settings_is_object check (jsonb_typeof(settings) = 'object'),
    -- What the tool was made of: `tool:<Vapi's tool id>`, or for one written in an
    -- assistant itself `assistant:<Vapi's assistant id>/<function name>`.
    add column imported_from text,
    -- What the last import made of it, for the next to compare with.
    add column imported_draft jsonb,
    add constraint tools_imported_has_draft check ((imported_from is null) = (imported_draft is null)),
    add constraint tools_imported_from_unique unique (project_id, imported_from);


-- The last import of each agent that came from Vapi.
create table vapi_imports (
    agent_id     uuid primary key,
    project_id   uuid not null,
    -- What the import made of the assistant. The next one changes only what differs
    -- from this, so that what was changed by hand since stays.
    draft        jsonb not null,
    -- What became of every field of the assistant and its tools. Holds no values of
    -- theirs, so no secrets.
    report       jsonb not null,
    imported_at  timestamptz not null default now(),
    foreign key (project_id, agent_id) references agents (project_id, id) on delete cascade,
    constraint vapi_imports_draft_is_object check (jsonb_typeof(draft) = 'object'),
    constraint vapi_imports_report_is_object check (jsonb_typeof(report) = 'object')
);
