create table unanswered (
    key      text primary key,
    noted_ns integer not null,
    sha256   blob
) strict, without rowid;
