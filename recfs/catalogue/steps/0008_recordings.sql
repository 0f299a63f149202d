-- How long recordings live.

create table recording (
    ino        integer primary key,
    status     text    not null check (status in ('active', 'expired', 'removing')),
    created_ns integer not null,
    born_ns    integer not null,
    changed_ns integer not null,
    expires_ns integer,
    dated_ns   integer not null,
    ahead_ns   integer not null,
    expired_ns integer not null,
    expired_by text    not null check (expired_by in ('', 'operator', 'date', 'rule')),
    keep       integer not null,
    note       text    not null,
    set_by     text    not null
) strict;
