create table media (
    ino       integer primary key,
    sha256    blob    not null check (length(sha256) = 32),
    checker   text    not null check (checker in ('media', 'json', 'srt', 'vtt')),
    verdict   text    not null check (verdict in ('pending', 'whole', 'broken', 'unknown')),
    reason    text    not null,
    facts     text    not null,
    attempts  integer not null,
    queued_ns integer not null,
    began_ns  integer not null,
    ended_ns  integer not null
) strict;

create index media_open on media (ino) where verdict = 'pending';

create index media_bad on media (ino) where verdict in ('broken', 'unknown');

create index media_sha256 on media (sha256) where verdict in ('whole', 'broken')
