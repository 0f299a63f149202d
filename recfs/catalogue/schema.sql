-- The catalogue: what recfs knows of every file. SQLite ≥ 3.37, WAL.
--
-- Invariants (proved by `recfs quota check` and the component tests):
--   1. Every name in the mount is one row of `node`; recfs has no hard links, so inode and name share it.
--   2. A directory's size_bytes and rfiles are the totals of the rows below it; a user's used_bytes and
--      used_files are the totals of users/<id> and temp/<id>. They change in the transaction of the rows they count.
--   3. Bytes on disk belong to exactly one of: a `node` row, a `garbage` row, or a staging file that is not named yet.
--      A row of `placement` or `local_copy` is written and removed with the `node` or `object` row of its inode.
--   4. Inode numbers are never used twice: meta.next_ino lies above every number ever given out.
-- Units are in the names (_bytes, _ns). Names are BLOBs: any byte but '/' and NUL is legal in them.

create table meta (
    key   text primary key,  -- next_ino, next_gid, boot_id, clean, store_id, created_ns, figures_recount, recordings_since
    value text not null
) strict, without rowid;

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
    activity_ns integer not null default 0,  -- temp job directory: last change inside
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
create index node_unsettled on node (ino) where state in ('writing', 'sealing');
-- The sweeper asks for jobs by age.
create index node_jobs on node (activity_ns) where activity_ns <> 0;
-- `recfs status` counts files by state without a table scan of the committed majority.
create index node_state on node (state) where state is not null and state <> 'committed';

-- … and symlinks, which the root's total counts among the files.
create index node_links on node (kind) where kind = 'symlink';

-- What is true of an inode on one machine alone. Where it would say nothing, there is no row.
create table placement (
    host        integer not null,      -- whose; 1: this machine, the only one for now
    ino         integer not null,
    staging     text,                  -- bytes lie in .recfs/staging/<staging>
    home_ino    integer,               -- st_ino on disk: tells after a crash whether a move happened
    pending     integer not null default 0,  -- bits: 1 make, 2 move, 4 attributes; 0 = the home tree agrees.
                                       -- 8: it is being changed where it lies, whatever place and label say
    home_parent integer,               -- physical place while it differs from (parent, name); 0 = .recfs/limbo
    home_name   blob,
    promised    integer not null default 0,  -- bits, of bytes not yet committed: 1 they were fsynced, 2 closed,
                                       -- 4 they lay at home when the catalogue was made anew, and are yet to be hashed
    primary key (host, ino)
) strict, without rowid;

-- With node_unsettled: what was under way, and what start-up compares with what lies in staging. Two indexes, of which one
-- is in order of the staging ids, would double what it costs to write a row.
create index placement_unsettled on placement (host, ino) where pending <> 0 or staging is not null;

-- Bytes and directories that lost their name but still lie on disk: two-phase delete. Rows go last.
create table garbage (
    gid         integer primary key,   -- order of deletion; also the name in .recfs/trash
    ino         integer not null,
    kind        text    not null check (kind in ('file', 'dir', 'symlink')),
    path        blob    not null,      -- the mount path it had
    size_bytes  integer not null,
    sha256      blob,
    md5         blob,
    mode        integer not null,
    uid         integer not null,
    gid_owner   integer not null,
    mtime_ns    integer not null,
    staging     text,                  -- place: staging, or home_parent/home_name, or (all null) the trash
    home_parent integer,
    home_name   blob,
    home_ino    integer,
    deleted_ns  integer not null,
    held_by     integer,               -- inode whose next version will release this earlier one
    promised    integer not null default 0  -- bits, of bytes that were not committed: 1 they were fsynced, 2 closed
) strict;

-- Usage and limits. Null = the configured default applies; 9223372036854775807 = unlimited. And whose users/<id> and
-- temp/<id> are: all null of a user who is not told apart by uid.
create table account (
    user                text primary key,
    used_bytes          integer not null default 0,
    used_files          integer not null default 0,
    month               text    not null default '',  -- UTC, YYYY-MM, of month_uploads
    month_uploads       integer not null default 0,
    max_bytes           integer check (max_bytes >= 0),
    max_files           integer check (max_files >= 0),
    max_file_size       integer check (max_file_size >= 0),
    max_monthly_uploads integer check (max_monthly_uploads >= 0),
    owner_uid           integer,
    owner_gid           integer,
    owner_mode          integer  -- of both directories
) strict, without rowid;

-- What users set with setfattr (user.*). user.recfs.* is computed and never stored here.
create table xattr (
    ino   integer not null,
    name  blob    not null,
    value blob    not null,
    primary key (ino, name)
) strict, without rowid;

-- Shown shared files that a user deleted: hidden in that directory.
create table whiteout (
    parent integer not null,
    name   blob    not null,
    primary key (parent, name)
) strict, without rowid;

-- Small numbers for shared files that were shown through a fallback rule: half of their stable inode number there.
create table view (
    view_id integer primary key,
    ino     integer not null unique
) strict;

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
    uploaded_ns   integer not null
) strict;

-- Nothing is uploaded over another file's object. A removed file's row goes with it, so that this is unique but for moments.
create index object_key on object (key);
-- What S3 has already, as another file's object, is copied there.
create index object_sha256 on object (sha256);

-- What one machine has of it. Where it would say nothing, there is no row.
create table local_copy (
    host          integer not null,      -- as in `placement`
    ino           integer not null,
    used_ns       integer not null,      -- last use of it
    local         integer not null,      -- 1: the bytes are in the home tree
    pinned        integer not null,      -- 1: and stay there
    keep_until_ns integer not null,      -- and stay there until
    held          integer not null,      -- 1: the object is the way back of an unfinished overwrite
    primary key (host, ino)
) strict, without rowid;

-- Eviction takes the least recently used first.
create index local_copy_used on local_copy (host, used_ns) where local = 1 and pinned = 0;

-- Work on S3 that survives any crash: written with the rows it belongs to, gone when S3 has confirmed it.
create table journal (
    id          integer primary key,   -- order; work on one key is done in it
    kind        text    not null check (kind in ('upload', 'delete', 'move', 'abort')),
    ino         integer not null,      -- upload, move: of what; delete: whose object it was, or 0; else 0
    key         text    not null,      -- delete, abort: of what; upload, move: where something of it may be
    upload_id   text    not null,      -- a multipart upload that was begun, or empty
    parts       text    not null,      -- what the upload has begun to send, JSON; empty before
    size_bytes  integer not null,
    attempts    integer not null,
    next_try_ns integer not null,
    failed      integer not null,      -- 0; unused
    error       text    not null,      -- what the last attempt met, or what the row waits for
    created_ns  integer not null,
    host        integer not null default 1,  -- whose work it is, and until when no other machine takes it:
    lease_until_ns integer not null default 9223372036854775807
) strict;

-- Requests that S3 gave no answer to, and may carry out yet: what is put under such a key does not count at once.
create table unanswered (
    key      text primary key,
    noted_ns integer not null,
    sha256   blob                      -- of what may come to lie there; empty: it may be deleted; null: any of that
) strict, without rowid;

-- What sweeps did: the last runs of each. One that found nothing to do takes the place of the one before, if that
-- found nothing either.
create table sweep_run (
    id        integer primary key,   -- order in which they began
    name      text    not null,
    began_ns  integer not null,      -- for people; the next run goes by:
    steady_ns integer not null,      -- when it ended
    took_ms   integer not null,
    outcome   text    not null check (outcome in ('running', 'done', 'nothing', 'stopped', 'failed')),
    result    text    not null,
    asked     integer not null,      -- 1: by a command
    times     integer not null default 1  -- runs that this row stands for
) strict;

-- How long a recording lives: of the directory users/<id>/recordings/<id>. One that was there before this table has no
-- row before something is set; its ages count from meta.recordings_since.
create table recording (
    ino        integer primary key,
    status     text    not null check (status in ('active', 'expired', 'removing')),
    created_ns integer not null,      -- wall clock, for people; 0: not known
    born_ns    integer not null,      -- the others go by Clock.steady_ns: made …
    changed_ns integer not null,      -- … last changed inside, or up to a minute later
    expires_ns integer,               -- a date that was set (wall clock); null: the rules decide
    dated_ns   integer not null,      -- when it was set
    ahead_ns   integer not null,      -- how far ahead it lay then: so long has to pass as well
    expired_ns integer not null,      -- since when it is expired
    expired_by text    not null check (expired_by in ('', 'operator', 'date', 'rule')),
    keep       integer not null,      -- 1: neither rule nor date makes it expire
    note       text    not null,
    set_by     text    not null       -- who set date, keep or status last
) strict;

-- What the trash keeps beside bytes on this disk: all of a directory, a link, an empty file, or of what only S3 has; the
-- extended attributes of a file whose bytes are `garbage` of the same number.
create table trash_entry (
    gid           integer primary key,   -- one sequence with garbage.gid
    ino           integer not null,
    kind          text    not null check (kind in ('file', 'dir', 'symlink')),
    path          blob    not null,      -- the mount path it had
    size_bytes    integer not null,
    sha256        blob,
    md5           blob,
    mode          integer not null,
    uid           integer not null,
    gid_owner     integer not null,
    mtime_ns      integer not null,
    deleted_ns    integer not null,
    has_bytes     integer not null,      -- 1: there is a garbage row of this number
    target        blob,                  -- symlink text
    object_key    text,                  -- where S3 has the bytes
    object_etag   text    not null,
    storage_class text    not null,
    uploaded_ns   integer not null,
    xattrs        blob    not null,      -- name and value in turn, each after its length
    life          text    not null       -- what was kept of a recording, JSON; of anything else empty
) strict;

-- What became of files, for whoever asks for events: written in the transaction of the rows that it is about. The oldest
-- go after a time or beyond a number; the newest never does, so that no id is given twice.
create table event (
    id         integer primary key,  -- the order in which it happened; with meta.events_epoch, a reader's cursor
    at_ns      integer not null,     -- wall clock
    kind       text    not null,     -- committed, renamed, removed …
    ino        integer not null,     -- 0: of no file in particular
    path       blob    not null,     -- the mount path it had then
    was        blob,                 -- renamed: the one before
    size_bytes integer,
    sha256     blob,
    detail     text    not null
) strict;

-- How many files there are, and their bytes, by whose they are, their category (core/figures), and where their bytes are:
-- written with the rows they count, from what these take the place of (catalogue/counting). Not to be believed while
-- meta.figures_recount says anything but 0. A sum of sizes may be beyond 64 bits, so it is kept in two.
create table figure (
    user          text    not null,      -- empty: nobody's, as shared files are
    category      text    not null,
    here          integer not null,      -- 1: the bytes are on the local disk
    storage_class text    not null,      -- of their objects; empty: S3 has none
    files         integer not null,
    high          integer not null,      -- sum of size_bytes >> 32
    low           integer not null,      -- sum of size_bytes & (2**32 - 1)
    primary key (user, category, here, storage_class)
) strict, without rowid;

-- The same of uploads ("source.<ext>" in a recording), by the month in which they were last written.
create table uploaded (
    user  text    not null,
    month text    not null,              -- UTC, YYYY-MM
    files integer not null,
    high  integer not null,
    low   integer not null,
    primary key (user, month)
) strict, without rowid;

-- Days of which the counters are remembered, and when they were looked at: as soon as that day had begun.
create table figure_day (
    day   text    primary key,           -- UTC, YYYY-MM-DD
    at_ns integer not null               -- wall clock
) strict, without rowid;

-- What they said. Only of days on which that was something else than on the one before.
create table figure_of_day (
    user          text    not null,
    category      text    not null,
    here          integer not null,
    storage_class text    not null,      -- '?': it is not known where the bytes were (of days before step 0016)
    day           text    not null,
    files         integer not null,
    bytes         integer not null,
    primary key (user, category, here, storage_class, day)
) strict, without rowid;

-- What was found out of all files at some time, and takes too long to be asked for each time.
create table survey (
    name    text    primary key,
    at_ns   integer not null,            -- wall clock
    took_ms integer not null,
    found   text    not null             -- JSON
) strict, without rowid;

-- What is derived from recordings: one row for each product of each. Dropped with the recording, by a sweep.
create table derived (
    folder  integer not null,            -- the recording's directory
    product text    not null,
    source  integer not null,            -- the file it is made from …
    sha256  blob    not null,            -- … the version of it …
    options text    not null,            -- … and how (JSON)
    status  text    not null check (status in ('pending', 'processing', 'completed', 'failed')),
    reason  text    not null,            -- why it failed, or what it waits for
    tries   integer not null,
    next_ns integer not null,            -- when it is tried again (steady)
    at_ns   integer not null,            -- of the last change of this row (wall clock)
    job     text    not null,            -- temp job in which it is made; empty: none
    files   text    not null,            -- what recfs made and may replace: name, inode number, sha256 of each (JSON)
    staged  text    not null,            -- the same of what is about to be moved to its place
    primary key (folder, product)
) strict, without rowid;
create index derived_open on derived (folder, product) where status in ('pending', 'processing');

-- How long audio is cut into chunks. Dropped with the file, by a sweep.
create table chunk_plan (
    source      integer primary key,     -- the file
    sha256      blob    not null,        -- the version of it that this is about
    duration_ms integer not null,
    options     text    not null,        -- JSON
    job         text    not null,        -- temp job that the chunks are written to; empty: none yet
    at_ns       integer not null         -- wall clock
) strict;

create table chunk (
    source     integer not null,
    number     integer not null,         -- from 0
    start_ms   integer not null,
    end_ms     integer not null,
    name       text    not null,
    status     text    not null check (status in ('pending', 'processing', 'completed', 'failed')),
    reason     text    not null,
    ino        integer not null,         -- the file it was written to; 0: none
    size_bytes integer not null,
    sha256     blob,
    primary key (source, number)
) strict, without rowid;

-- What is known of files' contents, of the version with that checksum: of audio and video, and of texts with a known name.
-- Written as pending with the row that says that the file is committed, so that after any death it is found again.
create table media (
    ino       integer primary key,
    sha256    blob    not null check (length(sha256) = 32),
    checker   text    not null check (checker in ('media', 'json', 'srt', 'vtt')),
    verdict   text    not null check (verdict in ('pending', 'whole', 'broken', 'unknown')),
    reason    text    not null,          -- why it is broken, or could not be looked into
    facts     text    not null,          -- JSON: container, codecs, duration …
    attempts  integer not null,          -- looks that failed, one after another
    queued_ns integer not null,          -- wall clock: committed, or asked for …
    began_ns  integer not null,          -- … when the last look began …
    ended_ns  integer not null           -- … and ended
) strict;

-- What is to be looked into …
create index media_open on media (ino) where verdict = 'pending';

-- … what has to be told …
create index media_bad on media (ino) where verdict in ('broken', 'unknown');

-- … and what need not be looked into again for a copy.
create index media_sha256 on media (sha256) where verdict in ('whole', 'broken');
