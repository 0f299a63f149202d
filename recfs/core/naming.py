"""What a file's name says of its contents, and how a name is shown."""

_TEMPORARY_ENDINGS = (b".tmp", b".part", b".partial", b".crdownload", b"~")


def is_temporary_name(name: bytes) -> bool:
    """Tell whether a name looks like one that a program writes under before it renames the file.

    A leading dot (rsync writes `.name.AbCdEf`, rsync(1) --inplace), and the endings .tmp, .part, .partial,
    .crdownload and ~, in any case. Such a file is not uploaded until it has its final name, so that writing
    and renaming costs one upload. `name` is the last part of a path.
    """
    return name.startswith(b".") or name.lower().endswith(_TEMPORARY_ENDINGS)


def show_name(name: str) -> str:
    """Return a name fit for a terminal: control characters and bytes that are not UTF-8 escaped."""
    return "".join(_show_char(char) for char in name)


def _show_char(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
