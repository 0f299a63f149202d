create table derived (
    folder  integer not null,
    product text    not null,
    source  integer not null,
    sha256  blob    not null,
    options text    not null,
    status  text    not null check (status in ('pending', 'processing', 'completed', 'failed')),
    reason  text    not null,
    tries   integer not null,
    next_ns integer not null,
    at_ns   integer not null,
    job     text    not null,
    files   text    not null,
    staged  text    not null,
    primary key (folder, product)
) strict, without rowid;
create index derived_open on derived (folder, product) where status in ('pending', 'processing');

create table chunk_plan (
    source      integer primary key,
    sha256      blob    not null,
    duration_ms integer not null,
    options     text    not null,
    job         text    not null,
    at_ns       integer not null
) strict;

create table chunk (
    source     integer not null,
    number     integer not null,
    start_ms   integer not null,
    end_ms     integer not null,
    name       text    not null,
    status     text    not null check (status in ('pending', 'processing', 'completed', 'failed')),
    reason     text    not null,
    ino        integer not null,
    size_bytes integer not null,
    sha256     blob,
    primary key (source, number)
) strict, without rowid;
