alter table account add column owner_uid integer;
alter table account add column owner_gid integer;
alter table account add column owner_mode integer;
