-- What S3 holds of a file, the journal, and the states that go with them.
-- A check constraint cannot be changed in place (sqlite.org/lang_altertable.html, section 7), so `node` is made anew.

alter table node rename to node_0001;
drop index node_name;
drop index node_parent;
drop index node_unsettled;
drop index node_staged;
drop index node_jobs;
drop index node_state;
drop index node_links;

create table node (
    ino         integer primary key,   -- stable inode number; 1 is the root
    parent      integer not null,      -- directory; the root is its own parent
    name        blob    not null,
    kind        text    not null check (kind in ('file', 'dir', 'symlink')),
    mode        integer not null,      -- permission bits, suid/sgid/sticky; the type is `kind`
    uid         integer not null,
    gid         integer not null,
    size_bytes  integer not null check (size_bytes >= 0),  -- dir: recursive total (rbytes)
    rfiles      integer not null default 0,                -- dir: recursive count of files and symlinks
    atime_ns    integer not null,
    mtime_ns    integer not null,
    ctime_ns    integer not null,
    state       text check (state in ('writing', 'sealing', 'committed', 'incomplete', 'corrupt', 'uploading',
                                      'stored', 'evicted', 'fetching', 'archived')),
    sha256      blob check (sha256 is null or length(sha256) = 32),
    md5         blob check (md5 is null or length(md5) = 16),
    target      blob,                  -- symlink text
    staging     text,                  -- bytes lie in .recfs/staging/<staging>
    home_ino    integer,               -- st_ino on disk: tells after a crash whether a move happened
    pending     integer not null default 0,  -- bits: 1 make, 2 move, 4 attributes; 0 = the home tree agrees
    home_parent integer,               -- physical place while it differs from (parent, name); 0 = .recfs/limbo
    home_name   blob,
    activity_ns integer not null default 0,  -- temp job directory: last change inside
    fsynced     integer not null default 0,  -- fsync was promised for the bytes being written
    has_xattrs  integer not null default 0,
    has_object  integer not null default 0,  -- there is a row in `object`
    check ((kind = 'file') = (state is not null)),
    check (state <> 'committed' or sha256 is not null)
) strict;

-- Path walks, and the guarantee that a name stands once in a directory.
create unique index node_name on node (parent, name);
-- Listings page by inode number: (parent, rowid) order comes from this index.
create index node_parent on node (parent);
-- Start-up reads only what was under way; the rest of a million rows is never touched.
create index node_unsettled on node (ino) where pending <> 0 or state in ('writing', 'sealing');
-- Start-up compares these with what lies in staging.
create index node_staged on node (staging) where staging is not null;
-- The sweeper asks for jobs by age.
create index node_jobs on node (activity_ns) where activity_ns <> 0;
-- `recfs status` counts files by state without a table scan of the committed majority.
create index node_state on node (state) where state is not null and state <> 'committed';

-- … and symlinks, which the root's total counts among the files.
create index node_links on node (kind) where kind = 'symlink';

insert into node (
    ino, parent, name, kind, mode, uid, gid, size_bytes, rfiles, atime_ns, mtime_ns, ctime_ns, state, sha256,
    md5, target, staging, home_ino, pending, home_parent, home_name, activity_ns, fsynced, has_xattrs
)
select
    ino, parent, name, kind, mode, uid, gid, size_bytes, rfiles, atime_ns, mtime_ns, ctime_ns, state, sha256,
    md5, target, staging, home_ino, pending, home_parent, home_name, activity_ns, fsynced, has_xattrs
from node_0001;
drop table node_0001;

-- What S3 holds of a file: the version that was last confirmed.
create table object (
    ino           integer primary key,
    key           text    not null,      -- where it is; follows a rename behind
    etag          text    not null,
    size_bytes    integer not null,
    sha256        blob    not null,
    md5           blob    not null,
    mtime_ns      integer not null,
    storage_class text    not null,
    uploaded_ns   integer not null,
    used_ns       integer not null,      -- last use of the local copy
    local         integer not null,      -- 1: the bytes are in the home tree too
    pinned        integer not null,      -- 1: and stay there
    keep_until_ns integer not null,      -- and stay there until
    held          integer not null       -- 1: the way back of an unfinished overwrite
) strict;

-- Nothing is uploaded over another file's object. A removed file's row goes with it, so that this is unique but for moments.
create index object_key on object (key);
-- Eviction takes the least recently used first.
create index object_used on object (used_ns) where local = 1 and pinned = 0;

-- Work on S3 that survives any crash: written with the rows it belongs to, gone when S3 has confirmed it.
create table journal (
    id          integer primary key,   -- order; work on one key is done in it
    kind        text    not null check (kind in ('upload', 'delete', 'move', 'abort')),
    ino         integer not null,      -- upload, move: of what; else 0
    key         text    not null,      -- delete, abort: of what; upload: where its multipart upload goes
    upload_id   text    not null,      -- a multipart upload that was begun, or empty
    parts       text    not null,      -- parts S3 has confirmed, JSON
    size_bytes  integer not null,
    attempts    integer not null,
    next_try_ns integer not null,
    failed      integer not null,      -- 1: given up until somebody asks again
    error       text    not null,      -- of the last attempt
    created_ns  integer not null
) strict;
