-- The table of site-b that alerts are merged into; `seen_at` is its own.
create table public.alert (
    id bigint primary key,
    raised_at timestamptz not null,
    severity text not null,
    rule text not null,
    score numeric,
    source_ip inet,
    hosts text[],
    payload bytea,
    details jsonb,
    seen_at timestamptz not null default now()
);
