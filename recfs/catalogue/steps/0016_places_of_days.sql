alter table figure_of_day rename to earlier_of_day;

create table figure_of_day (
    user          text    not null,
    category      text    not null,
    here          integer not null,
    storage_class text    not null,
    day           text    not null,
    files         integer not null,
    bytes         integer not null,
    primary key (user, category, here, storage_class, day)
) strict, without rowid;

insert into figure_of_day (user, category, here, storage_class, day, files, bytes)
    select user, category, 1, '?', day, files, bytes from earlier_of_day;

drop table earlier_of_day;
