-- The queue. What no job can be is refused by a CHECK, what there is one of by a unique index, and
-- each statement of the hot path has a partial index that holds only the rows it looks for: a
-- million finished jobs then cost a claim nothing.

-- Which database this is: spool.id remembers it, so that a spool never meets another one unnoticed.
create table spoold.database (
  one boolean primary key default true check (one),
  id uuid not null default gen_random_uuid()
);
insert into spoold.database default values;

create table spoold.spool (
  id uuid primary key,
  site text not null,
  path text not null,          -- where the tree stood when a daemon last started on it
  device bigint not null,
  inode bigint not null,
  bound_at timestamptz not null default now()
);

-- One row a worker process. Liveness is here and not in its jobs: one small update a beat.
create table spoold.worker (
  id uuid primary key,
  host text not null,
  pid int not null,
  version text not null,
  spool uuid not null,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  draining boolean not null default false
) with (fillfactor = 50);

create table spoold.job (
  id uuid primary key,
  spool uuid not null,
  drop_name bytea not null
    constraint job_drop_name check (octet_length(drop_name) between 1 and 255
      and position('\x2f'::bytea in drop_name) = 0 and position('\x00'::bytea in drop_name) = 0),
  drop_sha256 bytea constraint job_drop_sha256 check (octet_length(drop_sha256) = 32),
  drop_bytes bigint not null constraint job_drop_bytes check (drop_bytes >= 0),
  action text,
  request jsonb constraint job_request check (jsonb_typeof(request) = 'object'),
  request_sha256 bytea constraint job_request_sha256 check (octet_length(request_sha256) = 32),
  priority smallint not null constraint job_priority check (priority between 0 and 1000),
  correlation_id text,
  due_at timestamptz not null,
  rank timestamptz not null,   -- due_at + priority * aging: linear aging as a static order
  admitted_at timestamptz not null default now(),
  claimed_at timestamptz,
  deadline_at timestamptz,
  finished_at timestamptz,
  state text not null constraint job_state check (state in ('scheduled', 'queued', 'running',
    'publishing', 'succeeded', 'duplicate', 'failed', 'rejected', 'cancelled')),
  epoch int not null default 0 constraint job_epoch check (epoch >= 0),
  attempt smallint not null default 0,
  max_attempts smallint not null,
  timeout_seconds int not null constraint job_timeout check (timeout_seconds > 0),
  worker uuid,
  dedup_key bytea constraint job_dedup_key check (octet_length(dedup_key) = 32),
  waits_for uuid,
  retry_of uuid,
  intake jsonb not null constraint job_intake check (jsonb_typeof(intake) = 'object'),
  progress jsonb,
  outcome jsonb,
  error jsonb,
  final_document bytea,
  sources jsonb not null default '[]' constraint job_sources check (jsonb_typeof(sources) = 'array'),

  constraint job_rank check (rank >= due_at),
  constraint job_attempts check (attempt between 0 and max_attempts and max_attempts >= 1),
  constraint job_running check (state <> 'running'
    or (worker is not null and claimed_at is not null and attempt >= 1 and epoch >= 1)),
  constraint job_deadline check ((state = 'running') = (deadline_at is not null)),
  constraint job_worker check (worker is null or state in ('running', 'publishing')),
  constraint job_finished check ((finished_at is not null) =
    (state in ('succeeded', 'duplicate', 'failed', 'rejected', 'cancelled'))),
  -- only what was rejected at the door may lack an action; a dropped bundle has no request
  constraint job_runnable check (state not in ('scheduled', 'queued', 'running')
    or (action is not null and (request is null or request_sha256 is not null))),
  constraint job_outcome check ((outcome is not null) =
    (state not in ('scheduled', 'queued', 'running'))),
  constraint job_outcome_state check (outcome is null or coalesce(outcome ->> 'state', '')
    in ('succeeded', 'duplicate', 'failed', 'rejected', 'cancelled')),
  constraint job_final check (finished_at is null
    or (final_document is not null and outcome ->> 'state' = state)),
  constraint job_document check (final_document is null
    or state not in ('scheduled', 'queued', 'running')),
  constraint job_key check (dedup_key is null or request_sha256 is not null),
  constraint job_waits check (waits_for is null or (state = 'scheduled' and dedup_key is not null
    and waits_for <> id))
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_analyze_scale_factor = 0.05);

create index job_due on spoold.job (spool, rank, id) where state = 'queued';
create index job_scheduled on spoold.job (spool, due_at)
  where state = 'scheduled' and waits_for is null;
create index job_waiting on spoold.job (waits_for) where waits_for is not null;
create index job_held on spoold.job (spool, worker) where worker is not null;
create index job_ownerless on spoold.job (spool, due_at, id)
  where state = 'publishing' and worker is null;
create index job_named on spoold.job (spool, drop_name, id) where finished_at is not null;
create index job_finished on spoold.job (spool, finished_at) where finished_at is not null;
create unique index job_name on spoold.job (spool, drop_name) where finished_at is null;
create unique index job_dedup on spoold.job (spool, dedup_key)
  where dedup_key is not null and waits_for is null and finished_at is null;

-- Keys of succeeded jobs. They outlive pruned rows: a key is done once, ever, until forgotten.
create table spoold.done (
  spool uuid not null,
  dedup_key bytea not null,
  request_sha256 bytea not null,
  job uuid not null,
  finished_at timestamptz not null default now(),
  primary key (spool, dedup_key)
);
create index done_job on spoold.done (job);

-- Names in the tree that belong to a job, reserved before the first rename.
create table spoold.published (
  spool uuid not null,
  folder text not null,
  name bytea not null,
  job uuid not null,
  primary key (spool, folder, name)
);
create index published_job on spoold.published (job);
