create table event (
    id         integer primary key,
    at_ns      integer not null,
    kind       text    not null,
    ino        integer not null,
    path       blob    not null,
    was        blob,
    size_bytes integer,
    sha256     blob,
    detail     text    not null
) strict;
