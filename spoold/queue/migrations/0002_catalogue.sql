-- What stands in the tree, by name, apart from the rows of jobs: those may be pruned first. And a
-- catalogue of the bundles that were made or restored here, which outlives both.

-- `inode`, `size` and `mtime_ns` prove later that what has the name is what was published; null: it
-- was not there any more when the name was reserved. `area` is what retention goes by.
alter table spoold.published
  add column role text not null default '',
  add column area text not null default '',
  add column inode bigint,
  add column size bigint,
  add column mtime_ns bigint,
  add column at timestamptz not null default now();

update spoold.published set role = move.role, size = move.size,
  inode = case when move.inode < 9223372036854775808 then move.inode
    else move.inode - 18446744073709551616 end
from spoold.job cross join lateral jsonb_to_recordset(job.sources)
  as move(role text, folder text, name text, inode numeric, size bigint)
where published.job = job.id and published.folder = move.folder
  and published.name = decode(move.name, 'base64');

update spoold.published set at = coalesce(job.finished_at, now()),
  area = case when job.outcome ->> 'state' = 'succeeded' and (
      job.action = 'bundle' and published.role = 'bundle'
      or job.action = 'rehydrate' and job.request is null and published.role = 'drop')
    then 'bundles' else split_part(published.folder, '/', 1) end
from spoold.job where published.job = job.id;

insert into spoold.published (spool, folder, name, job, role, area, at)
select distinct on (spool, drop_name) spool, 'status', drop_name || convert_to('.status.json', 'UTF8'),
  id, 'answer', 'status', finished_at
from spoold.job where finished_at is not null and octet_length(drop_name) <= 200
order by spool, drop_name, id desc;

alter table spoold.published
  alter column role drop default,
  alter column area drop default,
  add constraint published_area
    check (area in ('processed', 'failed', 'bundles', 'restored', 'status'));

create index published_due on spoold.published (spool, area, at, job);

-- Whose result an unfinished or recent duplicate names.
create index job_stands on spoold.job (spool, (outcome -> 'result' ->> 'duplicate_of'))
  where outcome ->> 'state' = 'duplicate';

create table spoold.bundle (
  spool uuid not null,
  job uuid not null,           -- that made or restored it; its row may be pruned
  bundle_id text collate "C" not null,
  manifest_sha256 bytea not null
    constraint bundle_manifest check (octet_length(manifest_sha256) = 32),
  from_site text not null,
  received boolean not null,
  folder text not null,        -- where its file stands, or stood
  name bytea not null,
  bytes bigint not null constraint bundle_bytes check (bytes >= 0),
  entries bigint not null constraint bundle_entries check (entries >= 0),
  created_at timestamptz not null,
  pinned boolean not null default false,
  removed_at timestamptz,
  constraint bundle_pinned check (removed_at is null or not pinned),
  primary key (spool, job)
);
create index bundle_standing on spoold.bundle (spool, created_at, job) where removed_at is null;
create index bundle_from on spoold.bundle (spool, from_site, created_at, job)
  where removed_at is null;
create index bundle_called on spoold.bundle (spool, bundle_id);
create index bundle_digits on spoold.bundle (spool, right(bundle_id, 12));

insert into spoold.bundle (spool, job, bundle_id, manifest_sha256, from_site, received, folder, name,
  bytes, entries, created_at)
select job.spool, job.id,
  coalesce(result.document ->> 'bundle_id',
    regexp_replace(result.document ->> 'bundle', '\.tar\.(zst|gz)$', ''), ''),
  decode(result.document ->> 'manifest_sha256', 'hex'),
  coalesce(result.document ->> 'from', spool.site, ''),
  job.action = 'rehydrate', file.folder, file.name,
  coalesce(file.size, (result.document ->> 'bytes')::bigint, 0),
  coalesce((result.document ->> 'entries')::bigint, 0), job.finished_at
from spoold.job
  cross join lateral (select job.outcome -> 'result' as document) as result
  join spoold.published as file on file.job = job.id and file.area = 'bundles'
  left join spoold.spool on spool.id = job.spool
where job.state = 'succeeded' and job.action in ('bundle', 'rehydrate')
  and result.document ->> 'manifest_sha256' is not null;
