"""What a file's name says of its contents."""

_TEMPORARY_ENDINGS = (b".tmp", b".part", b".partial", b".crdownload", b"~")


def is_temporary_name(name: bytes) -> bool:
    """Tell whether a name looks like one that a program writes under before it renames the file.

    A leading dot (rsync writes `.name.AbCdEf`, rsync(1) --inplace), and the endings .tmp, .part, .partial,
    .crdownload and ~, in any case. Such a file is not uploaded until it has its final name, so that writing
    and renaming costs one upload. `name` is the last part of a path.
    """
    return name.startswith(b".") or name.lower().endswith(_TEMPORARY_ENDINGS)
