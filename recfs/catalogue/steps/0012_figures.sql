create table figure (
    user          text    not null,
    category      text    not null,
    here          integer not null,
    storage_class text    not null,
    files         integer not null,
    high          integer not null,
    low           integer not null,
    primary key (user, category, here, storage_class)
) strict, without rowid;

create table uploaded (
    user  text    not null,
    month text    not null,
    files integer not null,
    high  integer not null,
    low   integer not null,
    primary key (user, month)
) strict, without rowid;

create table figure_day (
    day   text    primary key,
    at_ns integer not null
) strict, without rowid;

create table figure_of_day (
    user     text    not null,
    category text    not null,
    day      text    not null,
    files    integer not null,
    bytes    integer not null,
    primary key (user, category, day)
) strict, without rowid;

create table survey (
    name    text    primary key,
    at_ns   integer not null,
    took_ms integer not null,
    found   text    not null
) strict, without rowid;

insert into meta (key, value)
    select 'figures_recount', '1' where exists (select 1 from node where kind = 'file');
