-- The alerts of site-a: generated, with what is easy to get wrong.
create table alert (
    id bigint primary key,
    incident_id text not null,
    raised_at timestamptz not null,
    severity text not null,
    rule text not null,
    score numeric,
    source_ip inet,
    hosts text[],
    payload bytea,
    details jsonb
);
create index on alert (incident_id, id);

insert into alert
select
    9007199254740992 + i,  -- beyond what a double holds
    case when i % 4 = 0 then 'INC-8' else 'INC-7' end,
    timestamptz '2026-11-20 10:00:00.123456+00' + i * interval '1.5 seconds',
    (array['low', 'medium', 'high', 'critical'])[1 + i % 4],
    E'rule ' || i % 7 || E': "quoted", back\\slash,\ttab,\nline, \u2028, Gr\u00fc\u00dfe, \U0001F692',
    case i % 5 when 0 then null when 1 then 'NaN' else i * 1.10 end,
    case when i % 3 > 0 then inet '10.0.0.0' + i end,
    case i % 3 when 0 then null when 1 then '{}' else array['host-' || i, null, 'a,"b"', ''] end,
    case when i % 2 = 0 then sha256(i::text::bytea) end,
    jsonb_build_object('n', i, 'nested', jsonb_build_array(1.50, null, true, E'\u00e4"'))
from generate_series(1, 4000) i;
