BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'recfs','0001_schema','2026-11-29 04:38:42.199507+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'recfs','0002_objects','2026-11-29 04:38:42.200281+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'recfs','0003_times','2026-11-29 04:38:42.208565+00:00');
INSERT INTO "_sqlite_migrations" VALUES(4,'recfs','0004_promises','2026-11-29 04:38:42.209260+00:00');
INSERT INTO "_sqlite_migrations" VALUES(5,'recfs','0005_unanswered','2026-11-29 07:49:23.732352+00:00');
INSERT INTO "_sqlite_migrations" VALUES(6,'recfs','0006_placement','2026-11-29 11:21:12.122837+00:00');
INSERT INTO "_sqlite_migrations" VALUES(7,'recfs','0007_sweeps','2026-11-29 13:41:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(8,'recfs','0008_recordings','2026-11-29 13:57:55.671165+00:00');
INSERT INTO "_sqlite_migrations" VALUES(9,'recfs','0009_trash','2026-11-29 14:25:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(10,'recfs','0010_events','2026-11-29 17:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(11,'recfs','0011_owners','2026-11-29 20:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(12,'recfs','0012_figures','2026-11-29 20:45:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(13,'recfs','0013_derived','2026-11-30 00:10:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(14,'recfs','0014_twins','2026-11-30 00:50:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(15,'recfs','0015_media','2026-11-30 01:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(16,'recfs','0016_places_of_days','2026-11-30 10:00:00.000000+00:00');
CREATE TABLE account (
    user                text primary key,
    used_bytes          integer not null default 0,
    used_files          integer not null default 0,
    month               text    not null default '',
    month_uploads       integer not null default 0,
    max_bytes           integer check (max_bytes >= 0),
    max_files           integer check (max_files >= 0),
    max_file_size       integer check (max_file_size >= 0),
    max_monthly_uploads integer check (max_monthly_uploads >= 0)
, owner_uid integer, owner_gid integer, owner_mode integer) strict, without rowid;
INSERT INTO "account" VALUES('5',0,0,'',0,NULL,NULL,NULL,NULL,10005,77,448);
CREATE TABLE chunk (
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
INSERT INTO "chunk" VALUES(4,0,0,300000,'a_chunk_000.mp3','completed','',5,9,X'6363636363636363636363636363636363636363636363636363636363636363');
CREATE TABLE chunk_plan (
    source      integer primary key,
    sha256      blob    not null,
    duration_ms integer not null,
    options     text    not null,
    job         text    not null,
    at_ns       integer not null
) strict;
INSERT INTO "chunk_plan" VALUES(4,X'7373737373737373737373737373737373737373737373737373737373737373',600000,'{"format": "mp3", "length": 300.0, "overlap": 0.0, "silences": false}','temp/5/7',6);
CREATE TABLE derived (
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
INSERT INTO "derived" VALUES(3,'thumbnail',4,X'7373737373737373737373737373737373737373737373737373737373737373','{"at": 1.0, "v": 1, "width": 640}','completed','',0,0,5,'','[["assets/thumbnail.png", 4, "00"]]','[]');
CREATE TABLE event (
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
INSERT INTO "event" VALUES(3,4,'renamed',5,X'75736572732F352FFF',X'75736572732F352F78',NULL,NULL,'');
CREATE TABLE figure (
    user          text    not null,
    category      text    not null,
    here          integer not null,
    storage_class text    not null,
    files         integer not null,
    high          integer not null,
    low           integer not null,
    primary key (user, category, here, storage_class)
) strict, without rowid;
INSERT INTO "figure" VALUES('5','other',1,'',1,0,3);
INSERT INTO "figure" VALUES('5','other',1,'STANDARD',1,0,4);
CREATE TABLE figure_day (
    day   text    primary key,
    at_ns integer not null
) strict, without rowid;
INSERT INTO "figure_day" VALUES('2026-11-29',1);
CREATE TABLE figure_of_day (
    user          text    not null,
    category      text    not null,
    here          integer not null,
    storage_class text    not null,
    day           text    not null,
    files         integer not null,
    bytes         integer not null,
    primary key (user, category, here, storage_class, day)
) strict, without rowid;
INSERT INTO "figure_of_day" VALUES('5','other',1,'','2026-11-29',2,5);
CREATE TABLE garbage (
    gid         integer primary key,
    ino         integer not null,
    kind        text    not null check (kind in ('file', 'dir', 'symlink')),
    path        blob    not null,
    size_bytes  integer not null,
    sha256      blob,
    md5         blob,
    mode        integer not null,
    uid         integer not null,
    gid_owner   integer not null,
    mtime_ns    integer not null,
    staging     text,
    home_parent integer,
    home_name   blob,
    home_ino    integer,
    deleted_ns  integer not null,
    held_by     integer,
    promised    integer not null default 0
) strict;
INSERT INTO "garbage" VALUES(1,9,'file',X'75736572732F352F676F6E65',2,NULL,NULL,384,33,33,1,NULL,NULL,NULL,NULL,5,NULL,0);
CREATE TABLE journal (
    id          integer primary key,
    kind        text    not null check (kind in ('upload', 'delete', 'move', 'abort')),
    ino         integer not null,
    key         text    not null,
    upload_id   text    not null,
    parts       text    not null,
    size_bytes  integer not null,
    attempts    integer not null,
    next_try_ns integer not null,
    failed      integer not null,
    error       text    not null,
    created_ns  integer not null
, host integer not null default 1, lease_until_ns integer not null default 9223372036854775807) strict;
INSERT INTO "journal" VALUES(1,'delete',0,'users/5/gone','','',0,0,0,0,'',1,1,9223372036854775807);
CREATE TABLE local_copy (
    host          integer not null,
    ino           integer not null,
    used_ns       integer not null,
    local         integer not null,
    pinned        integer not null,
    keep_until_ns integer not null,
    held          integer not null,
    primary key (host, ino)
) strict, without rowid;
INSERT INTO "local_copy" VALUES(1,4,7,1,0,8,0);
CREATE TABLE media (
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
INSERT INTO "media" VALUES(4,X'7373737373737373737373737373737373737373737373737373737373737373','media','whole','','{"container":"mp4","mime":"video/mp4"}',0,1,2,3);
CREATE TABLE meta (
    key   text primary key,
    value text not null
) strict, without rowid;
INSERT INTO "meta" VALUES('figures_recount','0');
CREATE TABLE node (
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
INSERT INTO "node" VALUES(1,1,X'','dir',420,33,33,7,2,1,2,3,NULL,NULL,NULL,NULL,0,0,0);
INSERT INTO "node" VALUES(2,1,X'7573657273','dir',420,33,33,7,2,1,2,3,NULL,NULL,NULL,NULL,0,0,0);
INSERT INTO "node" VALUES(3,2,X'35','dir',420,33,33,7,2,1,2,3,NULL,NULL,NULL,NULL,0,0,0);
INSERT INTO "node" VALUES(4,3,X'636F6D6D6974746564','file',420,33,33,4,0,1,5,3,'stored',X'7373737373737373737373737373737373737373737373737373737373737373',X'6D6D6D6D6D6D6D6D6D6D6D6D6D6D6D6D',NULL,0,0,1);
INSERT INTO "node" VALUES(5,3,X'636166E9','file',420,33,33,3,0,1,2,3,'writing',NULL,NULL,NULL,0,0,0);
INSERT INTO "node" VALUES(6,3,X'6C696E6B','symlink',420,33,33,0,0,1,2,3,NULL,NULL,NULL,X'636F6D6D6974746564',0,0,0);
CREATE TABLE object (
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
INSERT INTO "object" VALUES(4,'users/5/committed','etag',4,X'7373737373737373737373737373737373737373737373737373737373737373',X'6D6D6D6D6D6D6D6D6D6D6D6D6D6D6D6D',5,'STANDARD',6);
CREATE TABLE placement (
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
INSERT INTO "placement" VALUES(1,4,NULL,99,0,NULL,NULL,0);
INSERT INTO "placement" VALUES(1,5,'abc-1',NULL,0,NULL,NULL,1);
CREATE TABLE recording (
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
INSERT INTO "recording" VALUES(3,'expired',11,12,13,14,15,16,17,'date',1,'a note','uid 0');
CREATE TABLE survey (
    name    text    primary key,
    at_ns   integer not null,
    took_ms integer not null,
    found   text    not null
) strict, without rowid;
INSERT INTO "survey" VALUES('stats',1,2,'{}');
CREATE TABLE sweep_run (
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
INSERT INTO "sweep_run" VALUES(1,'temp',5,6,7,'done','3 removed',0,1);
CREATE TABLE trash_entry (
    gid           integer primary key,
    ino           integer not null,
    kind          text    not null check (kind in ('file', 'dir', 'symlink')),
    path          blob    not null,
    size_bytes    integer not null,
    sha256        blob,
    md5           blob,
    mode          integer not null,
    uid           integer not null,
    gid_owner     integer not null,
    mtime_ns      integer not null,
    deleted_ns    integer not null,
    has_bytes     integer not null,
    target        blob,
    object_key    text,
    object_etag   text    not null,
    storage_class text    not null,
    uploaded_ns   integer not null,
    xattrs        blob    not null,
    life          text    not null
) strict;
INSERT INTO "trash_entry" VALUES(7,8,'symlink',X'75736572732F352F6C',0,NULL,NULL,511,1,2,3,4,0,X'78',NULL,'','',0,X'','');
CREATE TABLE unanswered (
    key      text primary key,
    noted_ns integer not null,
    sha256   blob
) strict, without rowid;
INSERT INTO "unanswered" VALUES('users/5/recordings/1/x',7,X'');
CREATE TABLE uploaded (
    user  text    not null,
    month text    not null,
    files integer not null,
    high  integer not null,
    low   integer not null,
    primary key (user, month)
) strict, without rowid;
CREATE TABLE view (
    view_id integer primary key,
    ino     integer not null unique
) strict;
CREATE TABLE whiteout (
    parent integer not null,
    name   blob    not null,
    primary key (parent, name)
) strict, without rowid;
CREATE TABLE xattr (
    ino   integer not null,
    name  blob    not null,
    value blob    not null,
    primary key (ino, name)
) strict, without rowid;
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE UNIQUE INDEX node_name on node (parent, name);
CREATE INDEX node_parent on node (parent);
CREATE INDEX node_unsettled on node (ino) where state in ('writing', 'sealing');
CREATE INDEX node_jobs on node (activity_ns) where activity_ns <> 0;
CREATE INDEX node_state on node (state) where state is not null and state <> 'committed';
CREATE INDEX node_links on node (kind) where kind = 'symlink';
CREATE INDEX placement_unsettled on placement (host, ino) where pending <> 0 or staging is not null;
CREATE INDEX object_key on object (key);
CREATE INDEX object_sha256 on object (sha256);
CREATE INDEX local_copy_used on local_copy (host, used_ns) where local = 1 and pinned = 0;
CREATE INDEX media_open on media (ino) where verdict = 'pending';
CREATE INDEX media_bad on media (ino) where verdict in ('broken', 'unknown');
CREATE INDEX media_sha256 on media (sha256) where verdict in ('whole', 'broken');
CREATE INDEX derived_open on derived (folder, product) where status in ('pending', 'processing');
COMMIT;
