-- Bytes that S3 has already, as another file's object, are copied there.
create index object_sha256 on object (sha256);
