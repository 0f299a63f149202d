"""What a process can ask of another user's tree; run as a user, it prints what came of each operation as JSON.

Run by a Python of the system, as a user who cannot read this directory: so it is passed as text, and imports nothing of
recfs. argv: `names` prints the names; `try THERE OWN` does each operation of OPS in THERE/<name> (a directory with `f`,
`d` and `l`, all open to everybody) from OWN/<name> (another of that kind); `top MOUNT ME OTHER ROOT PID` those of TOP.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import stat
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
AT_FDCWD = -100
IN_MODIFY = 2
FLAGS = {
    name: getattr(os, f"O_{name}")
    for name in ("RDONLY", "WRONLY", "RDWR", "APPEND", "TRUNC", "NOFOLLOW", "PATH", "NOATIME", "SYNC", "DIRECT")
}


def renameat2(old, new, flags):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def watch(path):
    fd = LIBC.inotify_init()
    try:
        if LIBC.inotify_add_watch(fd, os.fsencode(path), IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


def close(fd):
    os.close(fd)


def opened(path, flags, then=lambda fd: None):
    fd = os.open(path, flags, 0o666)
    try:
        then(fd)
    finally:
        os.close(fd)


def with_dir(path, then):
    opened(path, os.O_RDONLY | os.O_DIRECTORY, then)


def copy_range(there, own):
    def to(out):
        opened(f"{there}/f", os.O_RDONLY, lambda fd: os.copy_file_range(fd, out, 1, 0, 0))

    opened(f"{own}/f", os.O_WRONLY, to)


def copy_range_in(there, own):
    def source(fd):
        opened(f"{there}/f", os.O_WRONLY, lambda out: os.copy_file_range(fd, out, 1, 0, 0))

    opened(f"{own}/f", os.O_RDONLY, source)


def by_link(there, own):
    os.symlink(f"{there}/f", f"{own}/to")
    opened(f"{own}/to", os.O_RDONLY)


def by_link_to_directory(there, own):
    os.symlink(there, f"{own}/to")
    opened(f"{own}/to/new", os.O_WRONLY | os.O_CREAT)


def by_relative_link(there, own):
    os.symlink(os.path.relpath(there, own), f"{own}/to")
    os.listdir(f"{own}/to")


def by_dots(there, own):
    opened(f"{own}/d/../{os.path.relpath(there, own)}/f", os.O_RDONLY)


def by_descriptor(there, own):
    """From an open directory of one's own, upwards and down again."""
    with_dir(own, lambda fd: close(os.open(os.path.relpath(f"{there}/f", own), os.O_RDONLY, dir_fd=fd)))


def by_proc(there, own):
    with_dir(own, lambda fd: opened(f"/proc/self/fd/{fd}/{os.path.relpath(there, own)}/f", os.O_RDONLY))


def by_path_descriptor(there, own):
    """O_PATH asks for nothing of the file itself, but for the way to it."""

    def again(fd):
        opened(f"/proc/self/fd/{fd}", os.O_RDWR)

    opened(f"{there}/f", os.O_PATH, again)


def by_cwd(there, own):
    before = os.open(".", os.O_PATH)
    try:
        os.chdir(there)
    finally:
        os.fchdir(before)
        os.close(before)


def mapped(there, own):
    opened(f"{there}/f", os.O_RDWR, lambda fd: mmap.mmap(fd, 0).close())


def bound(there, own):
    with socket.socket(socket.AF_UNIX) as sock:
        with_dir(there, lambda fd: sock.bind(f"/proc/self/fd/{fd}/s"))


OPS = {
    **{
        f"open {name}": lambda there, own, flags=flags: opened(f"{there}/f", flags | (name_write(flags)))
        for name, flags in FLAGS.items()
    },
    "open CREAT": lambda there, own: opened(f"{there}/new", os.O_WRONLY | os.O_CREAT),
    "open CREAT of what is there": lambda there, own: opened(f"{there}/f", os.O_WRONLY | os.O_CREAT),
    "open CREAT EXCL": lambda there, own: opened(f"{there}/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "open CREAT TRUNC": lambda there, own: opened(f"{there}/f", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    "open TMPFILE": lambda there, own: opened(there, os.O_WRONLY | os.O_TMPFILE),
    "open DIRECTORY": lambda there, own: opened(f"{there}/d", os.O_RDONLY | os.O_DIRECTORY),
    "open PATH of a directory": lambda there, own: opened(there, os.O_PATH | os.O_DIRECTORY),
    "read": lambda there, own: opened(f"{there}/f", os.O_RDONLY, lambda fd: os.read(fd, 1)),
    "write": lambda there, own: opened(f"{there}/f", os.O_WRONLY, lambda fd: os.write(fd, b"x")),
    "stat": lambda there, own: os.stat(f"{there}/f"),
    "lstat": lambda there, own: os.lstat(f"{there}/l"),
    "access F_OK": lambda there, own: accessible(f"{there}/f", os.F_OK),
    "access R_OK": lambda there, own: accessible(f"{there}/f", os.R_OK),
    "access W_OK": lambda there, own: accessible(f"{there}/f", os.W_OK),
    "readdir": lambda there, own: os.listdir(there),
    "readdir of a directory in it": lambda there, own: os.listdir(f"{there}/d"),
    "readlink": lambda there, own: os.readlink(f"{there}/l"),
    "rename out": lambda there, own: os.rename(f"{there}/f", f"{own}/stolen"),
    "rename out, over one's own": lambda there, own: os.rename(f"{there}/f", f"{own}/f"),
    "rename in": lambda there, own: os.rename(f"{own}/f", f"{there}/new"),
    "rename in, over theirs": lambda there, own: os.rename(f"{own}/f", f"{there}/f"),
    "rename a directory in": lambda there, own: os.rename(f"{own}/d", f"{there}/new"),
    "rename a directory out": lambda there, own: os.rename(f"{there}/d", f"{own}/new"),
    "rename inside": lambda there, own: os.rename(f"{there}/f", f"{there}/new"),
    "rename NOREPLACE in": lambda there, own: renameat2(f"{own}/f", f"{there}/new", NOREPLACE),
    "rename NOREPLACE out": lambda there, own: renameat2(f"{there}/f", f"{own}/new", NOREPLACE),
    "rename EXCHANGE": lambda there, own: renameat2(f"{there}/f", f"{own}/f", EXCHANGE),
    "rename EXCHANGE the other way": lambda there, own: renameat2(f"{own}/d", f"{there}/d", EXCHANGE),
    "link out": lambda there, own: os.link(f"{there}/f", f"{own}/new"),
    "link in": lambda there, own: os.link(f"{own}/f", f"{there}/new"),
    "symlink": lambda there, own: os.symlink("f", f"{there}/new"),
    "unlink": lambda there, own: os.unlink(f"{there}/f"),
    "unlink a link": lambda there, own: os.unlink(f"{there}/l"),
    "mkdir": lambda there, own: os.mkdir(f"{there}/new"),
    "rmdir": lambda there, own: os.rmdir(f"{there}/d"),
    "mknod of a file": lambda there, own: os.mknod(f"{there}/new", 0o666 | stat.S_IFREG),
    "mknod of a FIFO": lambda there, own: os.mkfifo(f"{there}/new"),
    "bind of a socket": bound,
    "setxattr": lambda there, own: os.setxattr(f"{there}/f", "user.note", b"x"),
    "getxattr": lambda there, own: os.getxattr(f"{there}/f", "user.kept"),
    "getxattr of a checksum": lambda there, own: os.getxattr(f"{there}/f", "user.recfs.sha256"),
    "getxattr of a total": lambda there, own: os.getxattr(f"{there}/d", "user.recfs.rbytes"),
    "listxattr": lambda there, own: os.listxattr(f"{there}/f"),
    "removexattr": lambda there, own: os.removexattr(f"{there}/f", "user.kept"),
    "chmod": lambda there, own: os.chmod(f"{there}/f", 0o600),
    "chown": lambda there, own: os.chown(f"{there}/f", os.getuid(), os.getgid()),
    "lchown": lambda there, own: os.lchown(f"{there}/l", os.getuid(), os.getgid()),
    "truncate": lambda there, own: os.truncate(f"{there}/f", 0),
    "utimes": lambda there, own: os.utime(f"{there}/f", (1, 1)),
    "utimes of a link": lambda there, own: os.utime(f"{there}/l", (1, 1), follow_symlinks=False),
    "statfs": lambda there, own: os.statvfs(f"{there}/f"),
    "chdir": by_cwd,
    "flock": lambda there, own: opened(f"{there}/f", os.O_RDONLY, lambda fd: fcntl.flock(fd, fcntl.LOCK_EX)),
    "fcntl lock": lambda there, own: opened(f"{there}/f", os.O_RDWR, lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX)),
    "fsync": lambda there, own: opened(f"{there}/f", os.O_RDONLY, os.fsync),
    "fallocate": lambda there, own: opened(f"{there}/f", os.O_WRONLY, lambda fd: os.posix_fallocate(fd, 0, 10)),
    "seek for data": lambda there, own: opened(f"{there}/f", os.O_RDONLY, lambda fd: os.lseek(fd, 0, os.SEEK_DATA)),
    "copy_file_range out": copy_range,
    "copy_file_range in": copy_range_in,
    "mmap": mapped,
    "inotify": lambda there, own: watch(f"{there}/f"),
    "by a symbolic link of one's own": by_link,
    "by a link to the directory": by_link_to_directory,
    "by a relative link": by_relative_link,
    "by ..": by_dots,
    "by openat and ..": by_descriptor,
    "by /proc/self/fd and ..": by_proc,
    "by O_PATH and /proc/self/fd": by_path_descriptor,
}


def name_write(flags):
    return os.O_WRONLY if flags in (os.O_APPEND, os.O_TRUNC) else 0


def accessible(path, mode):
    if not os.access(path, mode):
        os.stat(path)
        raise PermissionError(errno.EACCES, "access(2)")


def top(mount, me, other, root, pid):
    """What is there above and beside the trees of users: the levels that nobody owns, what is shared, recfs's own."""
    mine, theirs = f"{mount}/users/{me}", f"{mount}/users/{other}"
    return {
        "readdir of users": lambda: os.listdir(f"{mount}/users"),
        "stat of their directory": lambda: os.stat(theirs),
        "readdir of their directory": lambda: os.listdir(theirs),
        "open of their directory": lambda: opened(theirs, os.O_RDONLY),
        "stat below": lambda: os.stat(f"{theirs}/recordings"),
        "stat of what is not there": lambda: os.stat(f"{theirs}/nothing"),
        "readdir of their temp": lambda: os.listdir(f"{mount}/temp/{other}"),
        "stat below their temp": lambda: os.stat(f"{mount}/temp/{other}/9"),
        "mkdir in their temp": lambda: os.mkdir(f"{mount}/temp/{other}/10"),
        "mkdir in their directory": lambda: os.mkdir(f"{theirs}/thumbnails"),
        "total of their directory": lambda: os.getxattr(theirs, "user.recfs.rbytes"),
        "usage of theirs": lambda: os.getxattr(theirs, "user.recfs.quota.used_bytes"),
        "limit of theirs": lambda: os.setxattr(theirs, "user.recfs.quota.max_bytes", b"1"),
        "limit of one's own": lambda: os.setxattr(mine, "user.recfs.quota.max_bytes", b"unlimited"),
        "usage of one's own": lambda: os.getxattr(mine, "user.recfs.quota.used_bytes"),
        "chmod of theirs": lambda: os.chmod(theirs, 0o777),
        "chown of theirs": lambda: os.chown(theirs, os.getuid(), -1),
        "utimes of theirs": lambda: os.utime(theirs, (1, 1)),
        "chmod of one's own": lambda: os.chmod(mine, 0o777),
        "chmod of one's own temp": lambda: os.chmod(f"{mount}/temp/{me}", 0o777),
        "fchmod of one's own": lambda: with_dir(mine, lambda fd: os.fchmod(fd, 0o777)),
        "chgrp of one's own": lambda: os.chown(mine, -1, os.getgid()),
        "chmod of one's recordings": lambda: os.chmod(f"{mine}/recordings", 0o755),
        "utimes of one's own": lambda: os.utime(mine, (1, 1)),
        "rename of theirs": lambda: os.rename(theirs, f"{mount}/users/70"),
        "rename over theirs": lambda: os.rename(mine, theirs),
        "exchange with theirs": lambda: renameat2(mine, theirs, EXCHANGE),
        "exchange of recordings": lambda: renameat2(f"{mine}/recordings", f"{theirs}/recordings", EXCHANGE),
        "rename of one's own": lambda: os.rename(mine, f"{mount}/users/70"),
        "rmdir of theirs": lambda: os.rmdir(theirs),
        "a new user": lambda: os.mkdir(f"{mount}/users/70"),
        "a new temp": lambda: os.mkdir(f"{mount}/temp/70"),
        "a link among users": lambda: os.symlink(theirs, f"{mount}/users/70"),
        "shared: create": lambda: opened(f"{mount}/shared/new", os.O_WRONLY | os.O_CREAT),
        "shared: create where modes let one": lambda: opened(f"{mount}/shared/open/new", os.O_WRONLY | os.O_CREAT),
        "shared: mkdir where modes let one": lambda: os.mkdir(f"{mount}/shared/open/new"),
        "shared: write": lambda: opened(f"{mount}/shared/open/f", os.O_WRONLY),
        "shared: truncate": lambda: os.truncate(f"{mount}/shared/open/f", 0),
        "shared: unlink": lambda: os.unlink(f"{mount}/shared/open/f"),
        "shared: rename": lambda: os.rename(f"{mount}/shared/open/f", f"{mount}/shared/open/g"),
        "shared: rename out": lambda: os.rename(f"{mount}/shared/open/f", f"{mine}/thumbnails/g"),
        "shared: rename in": lambda: os.rename(f"{mine}/thumbnails/own", f"{mount}/shared/open/g"),
        "shared: exchange": lambda: renameat2(f"{mine}/thumbnails/own", f"{mount}/shared/open/f", EXCHANGE),
        "shared: link": lambda: os.link(f"{mount}/shared/open/f", f"{mine}/thumbnails/g"),
        "shared: symlink": lambda: os.symlink("x", f"{mount}/shared/open/g"),
        "shared: setxattr": lambda: os.setxattr(f"{mount}/shared/open/f", "user.x", b"x"),
        "shared: chmod": lambda: os.chmod(f"{mount}/shared/open/f", 0o600),
        "shared: utimes": lambda: os.utime(f"{mount}/shared/open/f"),
        "shared: read": lambda: opened(f"{mount}/shared/open/f", os.O_RDONLY, lambda fd: os.read(fd, 1)),
        "shown: write": lambda: opened(f"{mine}/thumbnails/shown", os.O_WRONLY, lambda fd: os.write(fd, b"mine")),
        ".recfs in the mount": lambda: os.listdir(f"{mount}/.recfs"),
        ".recfs to be made there": lambda: os.mkdir(f"{mount}/.recfs"),
        ".recfs by ..": lambda: os.listdir(f"{mine}/../../.recfs"),
        "the mount itself": lambda: os.chmod(mount, 0o777),
        "the store on the disk": lambda: os.listdir(root),
        "one's own past the mount": lambda: os.listdir(f"{root}/users/{me}"),
        "the catalogue": lambda: opened(f"{root}/.recfs/catalogue.db", os.O_RDONLY),
        "the trash": lambda: os.listdir(f"{root}/.recfs/trash"),
        "the control socket": lambda: connected(f"{root}/.recfs/control.sock"),
        "their process's directory": lambda: os.listdir(f"/proc/{pid}/cwd/"),
        "their process's file": lambda: opened(f"/proc/{pid}/fd/0", os.O_RDONLY),
        "their process's memory": lambda: opened(f"/proc/{pid}/mem", os.O_RDWR),
        "a file by handle": lambda: by_handle(mine),
    }


def connected(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


def by_handle(path):
    """name_to_handle_at(2) of what is one's own, and back: whoever could do that could guess other handles."""
    handle = (ctypes.c_ubyte * 136)()
    ctypes.cast(handle, ctypes.POINTER(ctypes.c_uint))[0] = 128
    where = ctypes.c_int()
    if LIBC.name_to_handle_at(AT_FDCWD, os.fsencode(path), handle, ctypes.byref(where), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")

    def back(fd):
        got = LIBC.open_by_handle_at(fd, handle, os.O_RDONLY)
        if got < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        os.close(got)

    with_dir(path, back)


def outcome(operation, *paths):
    try:
        operation(*paths)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok"


def main():
    what, *args = sys.argv[1:]
    os.umask(0)
    if what == "names":
        found = sorted(OPS)
    elif what == "try":
        there, own = args
        found = {name: outcome(op, f"{there}/{at}", f"{own}/{at}") for at, (name, op) in enumerate(sorted(OPS.items()))}
    else:
        found = {name: outcome(op) for name, op in top(*args).items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
