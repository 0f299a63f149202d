create table sweep_run (
    id        integer primary key,
    name      text    not null,
    began_ns  integer not null,
    steady_ns integer not null,
    took_ms   integer not null,
    outcome   text    not null check (outcome in ('running', 'done', 'nothing', 'stopped', 'failed')),
    result    text    not null,
    asked     integer not null,
    times     integer not null default 1
) strict;
