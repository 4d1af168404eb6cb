-- Every statement that touches the schema, by name, with a line of why. {job} stands for the
-- columns of a Job. Times are the server's. What a worker may write is fenced by id, epoch, worker
-- and state: no row means that the lease is lost, whoever asked. Arrays travel in binary (`b`): as
-- text each element is quoted, in Python.

-- name: register_worker
-- The column `host` holds the place; `draining` is not used. To rename the one or to drop the other
-- would take a migration, which older daemons refuse.
insert into spoold.worker (id, host, pid, version, spool)
values (%(worker)s, %(place)s, %(pid)s, %(version)s, %(spool)s)
on conflict (id) do update set seen_at = now();

-- name: beat
-- No row: ours is gone, and what we held is somebody else's.
with beaten as (
  update spoold.worker set seen_at = now() where id = %(worker)s and spool = %(spool)s returning id
)
select job.id, job.epoch
from beaten left join spoold.job on job.spool = %(spool)s and job.worker = beaten.id;

-- name: leave
delete from spoold.worker where id = %(worker)s and spool = %(spool)s;

-- name: workers
select id, host, pid, version, extract(epoch from now() - seen_at)::float8
from spoold.worker where spool = %(spool)s order by started_at, id;

-- name: disown_running
-- Claims whose answer never arrived: nothing was done for them, so the attempt is given back.
update spoold.job set state = 'queued', worker = null, deadline_at = null, attempt = attempt - 1
where spool = %(spool)s and worker = %(worker)s and state = 'running' and id <> all(%(keep)b::uuid[])
returning id, (select pg_notify('spoold_job', %(spool)s::text));

-- name: disown_publishing
update spoold.job set worker = null
where spool = %(spool)s and worker = %(worker)s and state = 'publishing'
  and id <> all(%(keep)b::uuid[])
returning id, (select pg_notify('spoold_job', %(spool)s::text));

-- name: keyed_one_at_a_time
select pg_advisory_xact_lock(hashtextextended(%(spool)s::text, 0));

-- name: admit
-- One statement a batch; a row that conflicts in any unique index is left out, and asked about.
-- Locking order is that of the keys, so that two batches with the same keys do not deadlock.
insert into spoold.job (id, spool, drop_name, drop_sha256, drop_bytes, action, request,
  request_sha256, priority, correlation_id, due_at, rank, state, max_attempts, timeout_seconds,
  dedup_key, waits_for, retry_of, intake, outcome)
select given.id, %(spool)s, given.drop_name, given.drop_sha256, given.drop_bytes, given.action,
  given.request::jsonb, given.request_sha256, given.priority, given.correlation_id, due.at,
  due.at + make_interval(secs => given.priority * %(aging_seconds)s::float8),
  case when given.outcome is not null then 'publishing'
    when given.waits_for is not null or due.at > now() then 'scheduled' else 'queued' end,
  given.max_attempts, given.timeout_seconds, given.dedup_key, given.waits_for, given.retry_of,
  given.intake::jsonb, given.outcome::jsonb
from unnest(%(id)b::uuid[], %(drop_name)b::bytea[], %(drop_sha256)b::bytea[], %(drop_bytes)b::bigint[],
    %(action)b::text[], %(request)b::text[], %(request_sha256)b::bytea[], %(priority)b::smallint[],
    %(correlation_id)b::text[], %(not_before)b::timestamptz[], %(max_attempts)b::smallint[],
    %(timeout_seconds)b::int[], %(dedup_key)b::bytea[], %(waits_for)b::uuid[], %(retry_of)b::uuid[],
    %(intake)b::text[], %(outcome)b::text[])
  as given(id, drop_name, drop_sha256, drop_bytes, action, request, request_sha256, priority,
    correlation_id, not_before, max_attempts, timeout_seconds, dedup_key, waits_for, retry_of,
    intake, outcome)
  cross join lateral (select case when given.outcome is not null then now()
    else greatest(given.not_before, now()) end as at) as due
order by given.dedup_key, given.id
on conflict do nothing
returning id, (select pg_notify('spoold_job', %(spool)s::text));

-- name: known
-- An id is never given twice; but a spool may be copied, with drops that have theirs.
select id, spool = %(spool)s from spoold.job where id = any(%(ids)b::uuid[]);

-- name: existing
select id, state, epoch from spoold.job where spool = %(spool)s and id = any(%(ids)b::uuid[]);

-- name: busy_names
select drop_name from spoold.job
where spool = %(spool)s and finished_at is null and drop_name = any(%(names)b::bytea[]);

-- name: lock_key_holder
-- FOR SHARE holds off the holder's finish until the one that waits for it is there to be seen by
-- it; whoever comes after that finish finds no row here.
select id, request_sha256 from spoold.job
where spool = %(spool)s and dedup_key = %(dedup_key)s and waits_for is null and finished_at is null
for share;

-- name: key_holder
select id, request_sha256 from spoold.job
where spool = %(spool)s and dedup_key = %(dedup_key)s and waits_for is null and finished_at is null;

-- name: done
-- Asked in a statement after the key was taken: a job that gave the key up by succeeding has put
-- it here first.
select dedup_key, request_sha256, job from spoold.done
where spool = %(spool)s and dedup_key = any(%(dedup_keys)b::bytea[]);

-- name: stand_for
-- Another job's success, or another request's key, decides these: a worker only publishes that.
update spoold.job set state = 'publishing', outcome = given.outcome::jsonb, dedup_key = null,
  waits_for = null, due_at = now(), rank = rank + greatest(now() - due_at, interval '0')
from unnest(%(ids)b::uuid[], %(outcomes)b::text[]) as given(id, outcome)
where job.spool = %(spool)s and job.id = given.id and job.state in ('scheduled', 'queued')
returning job.id, (select pg_notify('spoold_job', %(spool)s::text));

-- name: claim
-- The index job_due gives the order; `spool` is pinned, so the cost is the same at any backlog. A
-- row that has lost an attempt is claimed alone: if it kills its worker, no neighbour loses one.
-- The lock has asked for the state. Asked again in the update it would let the planner go through
-- all due rows for these ids, where it believes, from statistics made in a quiet hour, that there
-- are none; a join would let it go through the table. An array leaves it the primary key.
with due as (
  select id, attempt, rank from spoold.job
  where spool = %(spool)s and state = 'queued'
    and exists (select from spoold.worker
      where worker.id = %(worker)s and worker.spool = %(spool)s)
  order by rank, id limit %(limit)s for update skip locked
), ordered as (
  select id, row_number() over (order by rank, id) as place,
    bool_or(attempt > 0) over (order by rank, id) as risky
  from due
)
update spoold.job set state = 'running', epoch = epoch + 1, attempt = attempt + 1,
  worker = %(worker)s, claimed_at = now(), progress = null,
  deadline_at = now() + make_interval(secs => timeout_seconds)
where job.id = any(array(select id from ordered where place = 1 or not risky))
returning {job};

-- name: claim_publishing
update spoold.job set epoch = epoch + 1, worker = %(worker)s
where job.id = any(array(
  select id from spoold.job
  where spool = %(spool)s and state = 'publishing' and worker is null and due_at <= now()
    and exists (select from spoold.worker
      where worker.id = %(worker)s and worker.spool = %(spool)s)
  order by due_at, id limit %(limit)s for update skip locked))
returning {job};

-- name: progress
-- Only this column changes, which no index holds: a cheap (heap-only) update.
update spoold.job set progress = %(progress)s::jsonb
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'running'
returning id;

-- name: holds
-- Asked where something is to be done that no row guards.
select id from spoold.job
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state in ('running', 'publishing');

-- name: own_key
select dedup_key from spoold.job
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'running'
for no key update;

-- name: take_key
update spoold.job set dedup_key = %(dedup_key)s, request_sha256 = %(request_sha256)s
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'running'
returning id;

-- name: give_up_key
update spoold.job set dedup_key = null
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'running'
returning id;

-- name: lock_holder
select id from spoold.job
where spool = %(spool)s and id = %(holder)s and dedup_key = %(dedup_key)s and waits_for is null
  and finished_at is null
for share;

-- name: wait_for
update spoold.job set state = 'scheduled', waits_for = %(holder)s, dedup_key = %(dedup_key)s,
  request_sha256 = %(request_sha256)s, worker = null, deadline_at = null, attempt = attempt - 1
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'running'
returning id;

-- name: release
update spoold.job set state = 'queued', worker = null, deadline_at = null, attempt = attempt - 1
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'running'
returning id, (select pg_notify('spoold_job', %(spool)s::text));

-- name: retry
-- The rank moves with the due time, whatever aging it was made with.
update spoold.job set state = 'scheduled', worker = null, deadline_at = null,
  error = %(error)s::jsonb, due_at = now() + make_interval(secs => %(delay_seconds)s::float8),
  rank = rank - due_at + (now() + make_interval(secs => %(delay_seconds)s::float8))
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'running' and attempt < max_attempts
returning id;

-- name: postpone
-- What stands in the way is no fault of the job: the attempt is given back.
update spoold.job set state = 'scheduled', worker = null, deadline_at = null, attempt = attempt - 1,
  error = %(error)s::jsonb, due_at = now() + make_interval(secs => %(delay_seconds)s::float8),
  rank = rank - due_at + (now() + make_interval(secs => %(delay_seconds)s::float8))
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'running'
returning id;

-- name: begin_publishing
-- The point of no return of a batch, in one statement: a taken name refuses all of it.
with begun as (
  update spoold.job set state = 'publishing', deadline_at = null, outcome = given.outcome::jsonb,
    final_document = given.final_document, sources = given.sources::jsonb
  from unnest(%(jobs)b::uuid[], %(epochs)b::int[], %(workers)b::uuid[], %(outcomes)b::text[],
      %(final_documents)b::bytea[], %(sources)b::text[])
    as given(job, epoch, worker, outcome, final_document, sources)
  where job.spool = %(spool)s and job.id = given.job and job.epoch = given.epoch
    and job.worker = given.worker and job.state = 'running'
  returning job.id
), named as (
  insert into spoold.published (spool, folder, name, job, role, area, inode, size, mtime_ns)
  select %(spool)s, given.folder, given.name, begun.id, given.role, given.area, given.inode,
    given.size, given.mtime_ns
  from begun join unnest(%(owners)b::uuid[], %(folders)b::text[], %(names)b::bytea[],
      %(roles)b::text[], %(areas)b::text[], %(inodes)b::bigint[], %(sizes)b::bigint[],
      %(mtimes)b::bigint[])
    as given(job, folder, name, role, area, inode, size, mtime_ns) on given.job = begun.id
)
select id from begun;

-- name: begun_before
-- The same step again after a commit whose answer was lost.
select job.id from spoold.job
join unnest(%(jobs)b::uuid[], %(epochs)b::int[], %(workers)b::uuid[], %(final_documents)b::bytea[])
  as given(job, epoch, worker, final_document) on job.id = given.job
where job.spool = %(spool)s and job.epoch = given.epoch and job.worker = given.worker
  and job.state = 'publishing' and job.final_document = given.final_document;

-- name: amend_publishing
update spoold.job set outcome = given.outcome::jsonb, final_document = given.final_document,
  sources = given.sources::jsonb
from unnest(%(jobs)b::uuid[], %(epochs)b::int[], %(workers)b::uuid[], %(outcomes)b::text[],
    %(final_documents)b::bytea[], %(sources)b::text[])
  as given(job, epoch, worker, outcome, final_document, sources)
where job.spool = %(spool)s and job.id = given.job and job.epoch = given.epoch
  and job.worker = given.worker and job.state = 'publishing'
returning job.id;

-- name: unreserve
delete from spoold.published where job = any(%(amended)b::uuid[]);

-- name: reserve
insert into spoold.published (spool, folder, name, job, role, area, inode, size, mtime_ns)
select %(spool)s, given.folder, given.name, given.job, given.role, given.area, given.inode,
  given.size, given.mtime_ns
from unnest(%(owners)b::uuid[], %(folders)b::text[], %(names)b::bytea[], %(roles)b::text[],
    %(areas)b::text[], %(inodes)b::bigint[], %(sizes)b::bigint[], %(mtimes)b::bigint[])
  as given(job, folder, name, role, area, inode, size, mtime_ns)
where given.job = any(%(amended)b::uuid[]);

-- name: defer_publishing
update spoold.job set worker = null, error = coalesce(%(error)s::jsonb, error),
  due_at = now() + make_interval(secs => %(delay_seconds)s::float8),
  rank = rank - due_at + (now() + make_interval(secs => %(delay_seconds)s::float8))
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and worker = %(worker)s
  and state = 'publishing'
returning id;

-- name: finish
-- The catalogue's rows are made of what the job's own says: no other statement, and nothing at all
-- for jobs that are no bundles. The answer under status/ takes the name over from an earlier job (a
-- later one's stands where an older database has forgotten this one).
with ended as (
  update spoold.job set state = job.outcome ->> 'state', finished_at = now(), worker = null
  from unnest(%(jobs)b::uuid[], %(epochs)b::int[], %(workers)b::uuid[], %(answers)b::bytea[])
    as given(job, epoch, worker, answer)
  where job.spool = %(spool)s and job.id = given.job and job.epoch = given.epoch
    and job.worker = given.worker and job.state = 'publishing' and job.final_document is not null
  returning job.id, job.spool, job.state, job.dedup_key, job.request_sha256, job.action,
    job.outcome -> 'result' as result, given.answer
), kept as (
  insert into spoold.done (spool, dedup_key, request_sha256, job)
  select spool, dedup_key, request_sha256, id from ended
  where state = 'succeeded' and dedup_key is not null
  on conflict do nothing
), answered as (
  insert into spoold.published (spool, folder, name, job, role, area)
  select spool, 'status', answer, id, 'answer', 'status' from ended where answer is not null
  on conflict (spool, folder, name) do update set job = excluded.job, at = excluded.at
    where published.job <= excluded.job
), dated as (
  -- What was held up while it was published is as old as its answer: retention goes by that.
  update spoold.published set at = now() from ended
  where published.job = ended.id and published.spool = ended.spool and published.role <> 'answer'
    and published.at < now() - interval '1 minute'
), catalogued as (
  insert into spoold.bundle (spool, job, bundle_id, manifest_sha256, from_site, received, folder,
    name, bytes, entries, created_at)
  select ended.spool, ended.id,
    coalesce(ended.result ->> 'bundle_id',
      regexp_replace(ended.result ->> 'bundle', '\.tar\.(zst|gz)$', ''), ''),
    decode(ended.result ->> 'manifest_sha256', 'hex'),
    coalesce(ended.result ->> 'from',
      (select site from spoold.spool where spool.id = ended.spool), ''),
    ended.action = 'rehydrate', file.folder, file.name,
    coalesce(file.size, (ended.result ->> 'bytes')::bigint, 0),
    coalesce((ended.result ->> 'entries')::bigint, 0), now()
  from ended join spoold.published as file on file.job = ended.id and file.area = 'bundles'
  where ended.state = 'succeeded' and ended.action in ('bundle', 'rehydrate')
    and ended.result ->> 'manifest_sha256' is not null
  on conflict do nothing
)
select id from ended;

-- name: finished_before
-- The same step again after a commit whose answer was lost: any other owner would have raised the
-- epoch.
select job.id from spoold.job
join unnest(%(jobs)b::uuid[], %(epochs)b::int[]) as given(job, epoch)
  on job.id = given.job and job.epoch = given.epoch
where job.spool = %(spool)s and job.finished_at is not null;

-- name: awaited
-- In a statement after the holder's last update: its snapshot holds whoever came to wait before.
select distinct waits_for from spoold.job
where waits_for = any(%(jobs)b::uuid[]) and spool = %(spool)s;

-- name: orphaned_waits
-- The backstop: waiting for a job that is final or gone.
select distinct waiting.waits_for from spoold.job as waiting
where waiting.spool = %(spool)s and waiting.waits_for is not null
  and not exists (select from spoold.job as holder
    where holder.id = waiting.waits_for and holder.finished_at is null)
limit 100;

-- name: waiting
select id, dedup_key, request_sha256 from spoold.job
where spool = %(spool)s and waits_for = %(holder)s
order by id for no key update;

-- name: free
-- It takes the key: refused by job_dedup where another job has it by now.
update spoold.job set waits_for = null,
  state = case when due_at <= now() then 'queued' else 'scheduled' end
where spool = %(spool)s and id = %(job)s and waits_for is not null
returning id, (select pg_notify('spoold_job', %(spool)s::text));

-- name: wait_for_another
update spoold.job set waits_for = %(holder)s
where spool = %(spool)s and id = any(%(ids)b::uuid[]) and waits_for is not null
returning id;

-- name: promote
update spoold.job set state = 'queued'
where id = any(array(
  select id from spoold.job
  where spool = %(spool)s and state = 'scheduled' and waits_for is null and due_at <= now()
  order by due_at limit 5000 for update skip locked))
returning id, (select pg_notify('spoold_job', %(spool)s::text));

-- name: lost
-- A worker whose row was deleted is gone for certain. One that was not seen for a lease is, if the
-- server has been up, and we have watched, for as long: else nobody could be seen. (The age of this
-- backend would say nothing: behind a pooler it serves everybody, or came a moment ago.)
-- A job past its deadline has a worker that beats and does not get on. One that was claimed before
-- the server started may only have been unable to report: it gets a lease too.
with watch as (
  select pg_postmaster_start_time() <= now() - make_interval(secs => %(lease_seconds)s::float8)
    and %(watched_seconds)s::float8 >= %(lease_seconds)s::float8 as long_enough
)
select job.id, job.epoch, job.worker, job.state, job.attempt,
  worker.id is not null
    and worker.seen_at >= now() - make_interval(secs => %(lease_seconds)s::float8) as worker_lives
from spoold.job
  left join spoold.worker on worker.id = job.worker
  cross join watch
where job.spool = %(spool)s and job.worker is not null
  and (worker.id is null
    or watch.long_enough
      and worker.seen_at < now() - make_interval(secs => %(lease_seconds)s::float8)
    or job.state = 'running' and job.deadline_at < now()
      and (watch.long_enough or job.claimed_at >= pg_postmaster_start_time()))
limit 1000;

-- name: rescue
-- Whether it is still lost is asked again: the worker may have beaten, reported or finished since.
update spoold.job set worker = null, deadline_at = null, error = given.error::jsonb,
  state = case when attempt < max_attempts then 'scheduled' else 'publishing' end,
  outcome = case when attempt < max_attempts then null else given.outcome::jsonb end,
  dedup_key = case when attempt < max_attempts then dedup_key end,
  due_at = now() + case when attempt < max_attempts
    then make_interval(secs => given.delay_seconds) else interval '0' end,
  rank = rank - due_at + now() + case when attempt < max_attempts
    then make_interval(secs => given.delay_seconds) else interval '0' end
from unnest(%(jobs)b::uuid[], %(epochs)b::int[], %(workers)b::uuid[], %(delays)b::float8[],
    %(errors)b::text[], %(outcomes)b::text[])
  as given(job, epoch, worker, delay_seconds, error, outcome)
where job.spool = %(spool)s and job.id = given.job and job.epoch = given.epoch
  and job.worker = given.worker and job.state = 'running'
  and (job.deadline_at < now() or not exists (select from spoold.worker
    where worker.id = job.worker
      and worker.seen_at >= now() - make_interval(secs => %(lease_seconds)s::float8)))
returning job.id, job.state, pg_notify('spoold_gone', given.worker::text),
  pg_notify('spoold_job', %(spool)s::text);

-- name: rescue_publishing
update spoold.job set worker = null
from unnest(%(jobs)b::uuid[], %(epochs)b::int[], %(workers)b::uuid[]) as given(job, epoch, worker)
where job.spool = %(spool)s and job.id = given.job and job.epoch = given.epoch
  and job.worker = given.worker and job.state = 'publishing'
  and not exists (select from spoold.worker where worker.id = job.worker
    and worker.seen_at >= now() - make_interval(secs => %(lease_seconds)s::float8))
returning job.id, job.state, pg_notify('spoold_gone', given.worker::text),
  pg_notify('spoold_job', %(spool)s::text);

-- name: forget_workers
-- Rows of processes long dead that nobody signed off.
delete from spoold.worker
where spool = %(spool)s and seen_at < now() - make_interval(secs => %(seconds)s::float8)
  and not exists (select from spoold.job where job.spool = %(spool)s and job.worker = worker.id);

-- name: cancel
with held as (
  select id, worker from spoold.job where spool = %(spool)s and id = %(job)s for no key update
)
update spoold.job set state = 'publishing', worker = null, deadline_at = null, waits_for = null,
  dedup_key = null, outcome = %(outcome)s::jsonb, due_at = now(),
  rank = rank + greatest(now() - due_at, interval '0')
from held where job.id = held.id and job.state in ('scheduled', 'queued', 'running')
returning held.worker, pg_notify('spoold_job', %(spool)s::text),
  case when held.worker is not null then pg_notify('spoold_gone', held.worker::text) end;

-- name: forget
delete from spoold.done where spool = %(spool)s and dedup_key = %(dedup_key)s returning job;

-- name: forget_job
delete from spoold.done where spool = %(spool)s and job = %(job)s returning job;

-- name: prunable
select count(*) from spoold.job
where spool = %(spool)s and finished_at < now() - make_interval(secs => %(seconds)s::float8);

-- name: prune
-- In small batches: one large one would hold back vacuum for all. Names in the tree are given up when
-- their files go.
delete from spoold.job
where spool = %(spool)s and id = any(%(jobs)s) and finished_at is not null returning id;

-- name: next_to_prune
select id from spoold.job
where spool = %(spool)s and finished_at < now() - make_interval(secs => %(seconds)s::float8)
order by finished_at limit %(limit)s;

-- name: erase
-- Never of a spool that a tree is bound to.
with unbound as (
  select %(spool)s::uuid as spool
  where not exists (select from spoold.spool where id = %(spool)s)
), jobs as (
  delete from spoold.job using unbound where job.spool = unbound.spool
), workers as (
  delete from spoold.worker using unbound where worker.spool = unbound.spool
), keys as (
  delete from spoold.done using unbound where done.spool = unbound.spool
), bundles as (
  delete from spoold.bundle using unbound where bundle.spool = unbound.spool
)
delete from spoold.published using unbound where published.spool = unbound.spool;

-- name: get
select {job} from spoold.job where spool = %(spool)s and id = %(job)s;

-- name: newest_of
-- An unfinished one is the newest: no other could be admitted while it was. One index has the
-- unfinished, another the finished: both are used only where the question names both.
select {job} from unnest(%(names)b::bytea[]) as wanted (name)
cross join lateral (
  select * from spoold.job
  where spool = %(spool)s and drop_name = wanted.name
    and (finished_at is null or finished_at is not null)
  order by finished_at is null desc, id desc limit 1
) as job;

-- name: find_short
select {job} from spoold.job
where spool = %(spool)s and right(replace(id::text, '-', ''), length(%(digits)s::text)) = %(digits)s
order by id desc limit 20;

-- name: jobs
select {job} from spoold.job
where spool = %(spool)s and (cardinality(%(states)b::text[]) = 0 or state = any(%(states)b::text[]))
order by id desc limit %(limit)s;

-- name: to_retry
-- The newest of each name only: what a later drop or an earlier retry has answered since is done.
select {job} from spoold.job
where spool = %(spool)s and state = any(%(states)b::text[]) and finished_at is not null
  and (%(code)s::text is null or outcome -> 'error' ->> 'code' = %(code)s)
  and finished_at <= now() - make_interval(secs => %(older_than_seconds)s::float8)
  and (%(after)s::uuid is null or id > %(after)s)
  and not exists (select from spoold.job as newer
    where newer.spool = %(spool)s and newer.drop_name = job.drop_name and newer.id > job.id)
order by id limit %(limit)s;

-- name: backlog
-- A job for later has not waited yet.
select state, action, count(*), greatest(extract(epoch from now() - min(due_at)), 0)::float8
from spoold.job where spool = %(spool)s and finished_at is null
group by state, action order by state, action;

-- name: running
-- What running attempts last said of themselves.
select action, sum((progress->>'bytes_done')::float8), sum((progress->>'rows_done')::float8),
  sum((progress->>'entries_done')::float8), sum((progress->>'bytes_per_second')::float8)
from spoold.job where spool = %(spool)s and worker is not null and progress is not null
group by action order by action;

-- name: busy
-- One look into each of three indexes, where counting goes through all that is unfinished.
select exists (select from spoold.job where spool = %(spool)s and state = 'queued')
  or exists (select from spoold.job where spool = %(spool)s and worker is not null)
  or exists (select from spoold.job
    where spool = %(spool)s and state = 'publishing' and worker is null);

-- name: now
select now();

-- name: read_only
-- So is every transaction on a standby.
select current_setting('transaction_read_only') = 'on';

-- name: ended_since
select state, count(*) from spoold.job
where spool = %(spool)s and finished_at >= %(moment)s group by state;

-- name: published_by
-- The job's row may be pruned; the catalogue still knows the bundle.
select published.job,
  coalesce(job.outcome -> 'result' ->> 'manifest_sha256', encode(bundle.manifest_sha256, 'hex'))
from spoold.published
  left join spoold.job on job.id = published.job
  left join spoold.bundle on bundle.spool = published.spool and bundle.job = published.job
where published.spool = %(spool)s and published.folder = %(folder)s and published.name = %(name)s;

-- name: unpublish
-- Not of a job that may be about to rename something there.
delete from spoold.published
where spool = %(spool)s and folder = %(folder)s and name = %(name)s and job = %(job)s
  and not exists (select from spoold.job where id = %(job)s and finished_at is null)
returning job;

-- name: database_id
select id from spoold.database;

-- name: bound_spool
select path, device, inode from spoold.spool where id = %(spool)s;

-- name: bind_spool
insert into spoold.spool (id, site, path, device, inode)
values (%(spool)s, %(site)s, %(path)s, %(device)s, %(inode)s)
on conflict (id) do update set site = excluded.site, path = excluded.path,
  device = excluded.device, inode = excluded.inode, bound_at = now();

-- name: decide
-- The outcome of a job whose files have begun to move: a database from an older backup has forgotten
-- it, or has no row. One that knows as much is left alone.
insert into spoold.job (id, spool, drop_name, drop_sha256, drop_bytes, action, priority,
  correlation_id, due_at, rank, admitted_at, claimed_at, state, epoch, attempt, max_attempts,
  timeout_seconds, dedup_key, request_sha256, intake, outcome, final_document, sources)
values (%(job)s, %(spool)s, %(drop_name)s, %(drop_sha256)s, %(drop_bytes)s, %(action)s, %(priority)s,
  %(correlation_id)s, now(), now(), coalesce(%(admitted_at)s::timestamptz, now()),
  %(started_at)s::timestamptz, 'publishing', %(epoch)s, %(attempt)s, %(max_attempts)s, 1,
  %(dedup_key)s, %(request_sha256)s, %(intake)s::jsonb, %(outcome)s::jsonb, %(final_document)s,
  %(sources)s::jsonb)
on conflict (id) do update set state = 'publishing', worker = null, deadline_at = null,
  waits_for = null, due_at = now(), rank = job.rank - job.due_at + now(),
  epoch = greatest(job.epoch, excluded.epoch), outcome = excluded.outcome,
  final_document = excluded.final_document, sources = excluded.sources,
  dedup_key = case when %(keep_key)s then coalesce(job.dedup_key, excluded.dedup_key) end,
  request_sha256 = case when job.dedup_key is null
    then coalesce(excluded.request_sha256, job.request_sha256) else job.request_sha256 end
where job.spool = excluded.spool and job.finished_at is null and job.final_document is null
returning id;

-- name: reserve_free
insert into spoold.published (spool, folder, name, job, role, area, inode, size, mtime_ns)
select %(spool)s, given.folder, given.name, %(job)s, given.role, given.area, given.inode,
  given.size, given.mtime_ns
from unnest(%(folders)b::text[], %(names)b::bytea[], %(roles)b::text[], %(areas)b::text[],
    %(inodes)b::bigint[], %(sizes)b::bigint[], %(mtimes)b::bigint[])
  as given(folder, name, role, area, inode, size, mtime_ns)
on conflict do nothing;

-- name: raise_epoch
update spoold.job set epoch = %(epoch)s
where spool = %(spool)s and id = %(job)s and epoch < %(epoch)s and finished_at is null
returning id;

-- name: scheduled
select id from spoold.job
where spool = %(spool)s and state = 'scheduled' and waits_for is null;

-- name: hasten
update spoold.job set state = 'queued', due_at = now(), rank = rank - due_at + now()
where spool = %(spool)s and id = any(%(jobs)b::uuid[]) and state = 'scheduled'
  and waits_for is null
returning id, (select pg_notify('spoold_job', %(spool)s::text));

-- name: repoint
-- A copied tree has other inodes; nobody publishes while its operator accepts it.
update spoold.job set sources = %(sources)s::jsonb
where spool = %(spool)s and id = %(job)s and epoch = %(epoch)s and state = 'publishing'
returning id;

-- name: schema_exists
select to_regnamespace('spoold') is not null and to_regclass('spoold.migration') is not null;

-- name: migration_lock
-- Of the transaction, not of the session: a pooler may give that to somebody else.
select pg_advisory_xact_lock(8244971356218);

-- name: migration_patience
-- A change of a large table may take longer than any other statement or transaction of ours.
select set_config(name, '0', true) from pg_settings
where name in ('statement_timeout', 'transaction_timeout');

-- name: make_ledger
create schema if not exists spoold;
create table if not exists spoold.migration (
  number int primary key, name text not null, sha256 bytea not null,
  applied_at timestamptz not null default now()
);

-- name: migrations
select number, name, sha256 from spoold.migration order by number;

-- name: schema_version
select coalesce(max(number), 0) from spoold.migration;

-- name: migrated
insert into spoold.migration (number, name, sha256) values (%(number)s, %(name)s, %(sha256)s);

-- name: bundles
-- One index gives the order, with or without a site; what was removed is not in it.
select {bundle} from spoold.bundle
where spool = %(spool)s and removed_at is null and (created_at, job) < (%(before)s, %(job)s)
order by created_at desc, job desc limit %(limit)s;

-- name: bundles_from
select {bundle} from spoold.bundle
where spool = %(spool)s and removed_at is null and from_site = %(site)s
  and (created_at, job) < (%(before)s, %(job)s)
order by created_at desc, job desc limit %(limit)s;

-- name: bundles_called
-- The newest first, those that were removed after those that stand.
select {bundle} from spoold.bundle
where spool = %(spool)s and (bundle_id = %(text)s or job = %(job)s)
order by removed_at is null desc, created_at desc limit %(limit)s;

-- name: bundles_ending
select {bundle} from spoold.bundle
where spool = %(spool)s and right(bundle_id, 12) = %(text)s
order by removed_at is null desc, created_at desc limit %(limit)s;

-- name: bundles_beginning
select {bundle} from spoold.bundle
where spool = %(spool)s and bundle_id >= %(text)s and bundle_id < %(beyond)s
order by removed_at is null desc, created_at desc limit %(limit)s;

-- name: pin
update spoold.bundle set pinned = %(pinned)s
where spool = %(spool)s and job = %(job)s and removed_at is null
returning job;

-- name: standing_bundles
-- Those that retention may count and remove.
select count(*), coalesce(sum(bytes), 0)::bigint from spoold.bundle
where spool = %(spool)s and removed_at is null and not pinned;

-- name: due
-- Jobs that have names in an area since long, the oldest first.
select distinct at, job from spoold.published
where spool = %(spool)s and area = %(area)s
  and at < now() - make_interval(secs => %(seconds)s::float8)
  and (at, job) > (%(after)s, %(job)s)
order by at, job limit %(limit)s;

-- name: held
-- Jobs whose files something still speaks of: they are not final, another one's answer is theirs,
-- or is to be. (A pinned bundle is the next statement's.)
select id, 'unfinished' from spoold.job where id = any(%(jobs)b::uuid[]) and finished_at is null
union all
select waits_for, 'unfinished' from spoold.job
where waits_for = any(%(jobs)b::uuid[])
union all
select (outcome -> 'result' ->> 'duplicate_of')::uuid, 'duplicate' from spoold.job
where spool = %(spool)s and outcome ->> 'state' = 'duplicate'
  and outcome -> 'result' ->> 'duplicate_of' = any(%(texts)b::text[])
  and (finished_at is null
    or finished_at > now() - make_interval(secs => %(seconds)s::float8));

-- name: pinned
select job, 'pinned' from spoold.bundle
where spool = %(spool)s and job = any(%(jobs)b::uuid[]) and pinned;

-- name: placed
select {placed} from spoold.published
where spool = %(spool)s and job = any(%(jobs)b::uuid[]) and area = any(%(areas)b::text[])
order by at, job, role = 'status', role;

-- name: placed_at
select {placed} from spoold.published
where spool = %(spool)s and folder = %(folder)s and name = any(%(names)b::bytea[]);

-- name: all_placed
select {placed} from spoold.published
where spool = %(spool)s and (folder, name) > (%(folder)s, %(name)s)
order by folder, name limit %(limit)s;

-- name: give_up
-- The names are free again; a bundle whose file is gone is marked.
with freed as (
  delete from spoold.published
  using unnest(%(owners)b::uuid[], %(folders)b::text[], %(names)b::bytea[]) as given(job, folder, name)
  where published.spool = %(spool)s and published.folder = given.folder
    and published.name = given.name and published.job = given.job
  returning published.job, published.folder, published.name, published.area
)
update spoold.bundle set removed_at = now(), pinned = false
from freed
where bundle.spool = %(spool)s and bundle.job = freed.job and freed.area = 'bundles'
  and bundle.folder = freed.folder and bundle.name = freed.name and bundle.removed_at is null;

-- name: found_again
-- A copied tree has other inodes.
update spoold.published set inode = given.inode, size = given.size, mtime_ns = given.mtime_ns
from unnest(%(owners)b::uuid[], %(folders)b::text[], %(names)b::bytea[], %(inodes)b::bigint[],
    %(sizes)b::bigint[], %(mtimes)b::bigint[]) as given(job, folder, name, inode, size, mtime_ns)
where published.spool = %(spool)s and published.folder = given.folder
  and published.name = given.name and published.job = given.job;

-- name: reading
-- Unfinished requests that name paths beneath roots, page by page through the index of their names.
select drop_name, action, request from spoold.job
where spool = %(spool)s and finished_at is null and drop_name > %(after)s
  and request is not null and action = any(%(actions)b::text[])
order by drop_name limit %(limit)s;
