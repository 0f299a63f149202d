-- What is true of one machine alone moves out of `node` and `object`; work on S3 is some machine's.
-- Each row is written once: a column that is dropped would have all rows written anew, one column after the other.

alter table node rename to node_0005;
drop index node_name;
drop index node_parent;
drop index node_unsettled;
drop index node_staged;
drop index node_jobs;
drop index node_state;
drop index node_links;

create table node (
    ino         integer primary key,
    parent      integer not null,
    name        blob    not null,
    kind        text    not null check (kind in ('file', 'dir', 'symlink')),
    mode        integer not null,
    uid         integer not null,
    gid         integer not null,
    size_bytes  integer not null check (size_bytes >= 0),
    rfiles      integer not null default 0,
    atime_ns    integer not null,
    mtime_ns    integer not null,
    ctime_ns    integer not null,
    state       text check (state in ('writing', 'sealing', 'committed', 'incomplete', 'corrupt', 'uploading',
                                      'stored', 'evicted', 'fetching', 'archived')),
    sha256      blob check (sha256 is null or length(sha256) = 32),
    md5         blob check (md5 is null or length(md5) = 16),
    target      blob,
    activity_ns integer not null default 0,
    has_xattrs  integer not null default 0,
    has_object  integer not null default 0,
    check ((kind = 'file') = (state is not null)),
    check (state <> 'committed' or sha256 is not null)
) strict;

create table placement (
    host        integer not null,
    ino         integer not null,
    staging     text,
    home_ino    integer,
    pending     integer not null default 0,
    home_parent integer,
    home_name   blob,
    promised    integer not null default 0,
    primary key (host, ino)
) strict, without rowid;

insert into node
select
    ino, parent, name, kind, mode, uid, gid, size_bytes, rfiles, atime_ns, mtime_ns, ctime_ns, state, sha256, md5,
    target, activity_ns, has_xattrs, has_object
from node_0005 order by ino;

insert into placement
select 1, ino, staging, home_ino, pending, home_parent, home_name, promised
from node_0005
where staging is not null or home_ino is not null or pending <> 0 or home_name is not null or promised <> 0
order by ino;

drop table node_0005;

create unique index node_name on node (parent, name);
create index node_parent on node (parent);
create index node_unsettled on node (ino) where state in ('writing', 'sealing');
create index node_jobs on node (activity_ns) where activity_ns <> 0;
create index node_state on node (state) where state is not null and state <> 'committed';
create index node_links on node (kind) where kind = 'symlink';
create index placement_unsettled on placement (host, ino) where pending <> 0 or staging is not null;

alter table object rename to object_0005;
drop index object_key;
drop index object_used;

create table object (
    ino           integer primary key,
    key           text    not null,
    etag          text    not null,
    size_bytes    integer not null,
    sha256        blob    not null,
    md5           blob    not null,
    mtime_ns      integer not null,
    storage_class text    not null,
    uploaded_ns   integer not null
) strict;

create table local_copy (
    host          integer not null,
    ino           integer not null,
    used_ns       integer not null,
    local         integer not null,
    pinned        integer not null,
    keep_until_ns integer not null,
    held          integer not null,
    primary key (host, ino)
) strict, without rowid;

insert into object
select ino, key, etag, size_bytes, sha256, md5, mtime_ns, storage_class, uploaded_ns from object_0005 order by ino;

insert into local_copy
select 1, ino, used_ns, local, pinned, keep_until_ns, held
from object_0005
where used_ns <> 0 or local <> 0 or pinned <> 0 or keep_until_ns <> 0 or held <> 0
order by ino;

drop table object_0005;

create index object_key on object (key);
create index local_copy_used on local_copy (host, used_ns) where local = 1 and pinned = 0;

alter table journal add column host integer not null default 1;
alter table journal add column lease_until_ns integer not null default 9223372036854775807;
