create schema if not exists spoold_rows;
create table if not exists spoold_rows.merged (
  job_id text not null,
  sink text not null,
  bundle_id text not null,
  manifest_sha256 text not null,
  site text not null,
  target text not null,
  inserted bigint not null,
  updated bigint not null,
  skipped bigint not null,
  conflicting bigint not null,
  conflicts jsonb not null,
  applied_at timestamptz not null default now(),
  primary key (job_id, sink)
);
create table if not exists spoold_rows.merged_entry (
  job_id text not null,
  sink text not null,
  entry text not null,
  rows bigint not null,
  primary key (job_id, sink, entry),
  foreign key (job_id, sink) references spoold_rows.merged on delete cascade
);
