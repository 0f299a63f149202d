"""The cage in which ffprobe and ffmpeg run: a program of its own, which builds the cage around itself and becomes them.

    python -I -S sandbox.py uid=65534 gid=65534 cpu=20 … -- /usr/bin/ffprobe …

It runs with one thread and before anything hostile is read, which a function between fork and exec of a daemon with
threads could not. It knows nothing of recfs: the standard library alone. Its standard input is the file to be read.

What has to succeed: limits of resources (setrlimit(2)), no new privileges (prctl(2), PR_SET_NO_NEW_PRIVS), and for root
the change to an ordinary user without capabilities. The root of a user namespace that has no other user (`unshare -r`,
user_namespaces(7)) stays who it is, an ordinary user to everybody outside, and gives up its capabilities. What is had
where the kernel has it, and told on standard error in one line (`REPORT`): a network namespace without any interface, a
filter of system calls (seccomp(2)) that refuses sockets, whatever reaches other processes, and what is had by the name
of a file without opening it (extended attributes, modes, times, inotify(7)), Landlock (landlock(7)), by which nothing
can be opened but standard input, the program with its libraries, and the directory that it is to write to, and for root
a mount namespace in which there is nothing else. Without this one, names can still be looked at (stat(2)): whether a
file is there, its size and times.

A program that cannot read a descriptor it was given opens it again by name, for which an ordinary user would need
permissions on somebody's recording. `reopen=1` leaves it the one capability to read any file (CAP_DAC_READ_SEARCH), but
only where Landlock has said which files there are.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

REPORT = "recfs-sandbox:"
FAILED = 125
"""Exit code where the cage could not be made: the program did not run."""

OWN = "-c"
"""In the place of a program: Python text follows, which defines `main`, and words that this is called with."""

_libc = ctypes.CDLL(None, use_errno=True)

# prctl(2), linux/prctl.h
_PR_SET_KEEPCAPS = 8
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECCOMP_MODE_FILTER = 2
_CAP_DAC_READ_SEARCH = 2
_CAP_VERSION_3 = 0x20080522
# unshare(2)
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x40000000
# mount(2), umount2(2), open_tree(2), move_mount(2): linux/mount.h
_MS_PRIVATELY, _MS_PLAIN = 1 << 18 | 1 << 14, 8 | 4 | 2
_MNT_DETACH = 2
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _AT_EMPTY_PATH, _AT_RECURSIVE = 1, 4, 0x1000, 0x8000
# landlock(7), linux/landlock.h
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION = 1
_LANDLOCK_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FIRST_RIGHTS = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_MAKE_REMOVE = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8
"""Remove a directory and a file, make a directory and a regular file."""

_IOPRIO_LOWEST = 2 << 13 | 7
"""ioprio_set(2): best effort, the lowest level. Idle would starve it for good on a busy disk."""
NICE = 15
"""As the daemon sets it, too, as soon as it knows the process: until this one gets here Python has started."""
_MOST_FDS = 1 << 20

_READABLE = (
    "/usr", "/lib", "/lib64", "/lib32", "/bin", "/nix/store", "/gnu/store", "/etc/ld.so.cache",
    "/etc/ld.so.preload", "/etc/alternatives", "/etc/localtime", "/dev/urandom", "/dev/random", "/dev/zero",
    "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
"""What a program has to read to run. Nothing of anybody's."""
_WRITABLE = ("/dev/null",)
_PLACE = "/proc"
"""The new root is mounted over this until it is the root: no disk or server that hangs is asked for it."""
_WORK = "/recfs-workspace"
"""Where the directory that a program writes to is, in the new root."""

_ARCHITECTURES = {
    # AUDIT_ARCH (linux/audit.h), ioprio_set(2), and what is refused: socket socketpair connect ptrace setsid setpgid
    # mount process_vm_readv process_vm_writev open_by_handle_at unshare setns bpf userfaultfd perf_event_open keyctl
    # add_key request_key kill io_uring_setup pidfd_send_signal pidfd_open
    # and, by which one program of this user would touch another: tkill rt_sigqueueinfo rt_tgsigqueueinfo
    # sched_setaffinity setpriority ioprio_set sched_setscheduler sched_setparam sched_setattr migrate_pages move_pages
    # process_madvise process_mrelease pidfd_getfd shmget memfd_create
    # and what Landlock does not speak of: chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes
    # futimesat utimensat, the calls for extended attributes (of old, and setxattrat …, file_getattr, file_setattr),
    # inotify_init inotify_init1 inotify_add_watch fanotify_init name_to_handle_at quotactl statmount listmount
    # and what is for the program itself alone (its first argument a process): tgkill prlimit64
    "x86_64": (
        0xC000003E, 251,
        (41, 53, 42, 101, 112, 109, 165, 310, 311, 304, 272, 308, 321, 323, 298, 250, 248, 249, 62, 425, 424, 434,
         200, 129, 297, 203, 141, 251, 144, 142, 314, 256, 279, 440, 448, 438, 29, 319,
         90, 91, 268, 452, 92, 93, 94, 260, 132, 235, 261, 280, *range(188, 200), *range(463, 467), 468, 469,
         253, 294, 254, 300, 303, 179, 457, 458),
        (234, 302),
    ),
    "aarch64": (
        0xC00000B7, 30,
        (198, 199, 203, 117, 157, 154, 40, 270, 271, 265, 97, 268, 280, 282, 241, 219, 217, 218, 129, 425, 424, 434,
         130, 138, 240, 122, 140, 30, 119, 118, 274, 238, 239, 440, 448, 438, 194, 279,
         52, 53, 452, 54, 55, 88, *range(5, 17), *range(463, 467), 468, 469, 26, 27, 262, 264, 60, 457, 458),
        (131, 261),
    ),
}  # fmt: skip


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def _prctl(option: int, value: int, more: int = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _limit(settings: dict[str, int]) -> None:
    """Raise what the program may use to no more than *settings*; where less is allowed already, that stays."""
    for which, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 64 << 10),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_AS, settings["memory"]),
        (resource.RLIMIT_FSIZE, settings["file"]),
        (resource.RLIMIT_NOFILE, settings["descriptors"]),
        (resource.RLIMIT_NPROC, settings["processes"]),
        (resource.RLIMIT_CPU, settings["cpu"]),
    ):
        hard = resource.getrlimit(which)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # The soft limit of CPU time is a signal of its own (SIGXCPU), by which its end is known.
        further = 1 if which == resource.RLIMIT_CPU else 0
        resource.setrlimit(which, (bound, bound + further if hard == resource.RLIM_INFINITY else bound))


def _be_modest() -> None:
    if os.getpriority(os.PRIO_PROCESS, 0) < NICE:
        os.nice(NICE)
    known = _ARCHITECTURES.get(platform.machine())
    if known is not None:
        _libc.syscall(known[1], 1, 0, _IOPRIO_LOWEST)


def _own_network() -> bool:
    """A network namespace without interfaces; for an ordinary user, or in some containers, there is none to be had."""
    return not _libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS)


def _home(program: str) -> str:
    """What is a program's own: the directory that it is in, of one in /opt all that was installed with it."""
    path = os.path.realpath(program)
    parts = path.split("/")
    folder = "/".join(parts[:3]) if parts[1] == "opt" and len(parts) > 3 else os.path.dirname(path)
    return path if folder == "/" else folder


def _within(path: str, others: tuple[str, ...]) -> bool:
    return any(path == other or path.startswith(other + "/") for other in others)


def _hold(path: str, folder: int, flags: int) -> int:
    """What is there, as a mount that is nowhere yet; negative: it cannot be had."""
    return int(_libc.syscall(_OPEN_TREE, folder, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC | flags))


def _own_files(program: str, workspace: int) -> bool:
    """Be where there are no files but those that the program needs; False where that is not to be had.

    What there is to be is held before (open_tree(2)): the workspace is the directory that was opened, whatever its
    path. After that nothing of the old root is held, but by the descriptors that were there.
    """
    home = _home(program)
    wanted = [path for path in (*_READABLE, *_WRITABLE) if not _within(path, ("/proc",))]
    wanted += ["/proc"] if _within(home, _READABLE) else ["/proc", home]
    links = {path: os.readlink(path) for path in wanted if os.path.islink(path)}
    held = [(path, _hold(path, -100, _AT_RECURSIVE * (path != "/proc"))) for path in wanted
            if path not in links and os.path.exists(path)]  # fmt: skip
    held += [(_WORK, _hold("", workspace, _AT_EMPTY_PATH))] if workspace >= 0 else []
    files = {path for path, _ in held if path != _WORK and not os.path.isdir(path)}
    root, plain = _PLACE.encode(), ctypes.c_ulong(_MS_PLAIN)
    if (
        any(fd < 0 for _, fd in held)
        or _libc.unshare(_CLONE_NEWNS)
        or _libc.mount(None, b"/", None, ctypes.c_ulong(_MS_PRIVATELY), None)
        or _libc.mount(b"recfs-media", root, b"tmpfs", plain, b"size=1m,nr_inodes=1k,mode=0755")
    ):
        return False
    try:
        for path, target in links.items():
            os.makedirs(_PLACE + os.path.dirname(path), exist_ok=True)
            os.symlink(target, _PLACE + path)
        for path, fd in held:
            os.makedirs(_PLACE + (os.path.dirname(path) if path in files else path), exist_ok=True)
            if path in files:
                os.close(os.open(_PLACE + path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
            if _libc.syscall(_MOVE_MOUNT, fd, b"", -100, os.fsencode(_PLACE + path), _MOVE_MOUNT_F_EMPTY_PATH):
                raise OSError(ctypes.get_errno(), "move_mount")
            os.close(fd)
        os.chdir(_PLACE)
        if _libc.pivot_root(b".", b"."):  # the old one comes to lie over the new (pivot_root(2))
            raise OSError(ctypes.get_errno(), "pivot_root")
    except OSError:
        os.chdir("/")
        _libc.umount2(root, _MNT_DETACH)
        return False
    if _libc.umount2(b".", _MNT_DETACH):
        raise OSError(ctypes.get_errno(), "the old root cannot be let go")
    return True


def _allow(ruleset: int, fd: int, rights: int) -> None:
    rule = _PathBeneath(rights, fd)
    if _libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, ctypes.byref(rule), 0):
        number = ctypes.get_errno()
        raise OSError(number, f"landlock_add_rule: {os.strerror(number)}")


def _confine(program: str, workspace: int) -> bool:
    """Have the kernel refuse to open whatever the program does not need; False where it cannot do so."""
    abi = int(_libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION))
    if abi < 1:
        return False
    handled = _FIRST_RIGHTS
    handled |= _REFER if abi >= 2 else 0
    handled |= _TRUNCATE if abi >= 3 else 0
    handled |= _IOCTL_DEV if abi >= 5 else 0
    attributes = _RulesetAttr(handled)
    ruleset = int(_libc.syscall(_LANDLOCK_CREATE, ctypes.byref(attributes), ctypes.sizeof(attributes), 0))
    if ruleset < 0:
        return False
    for paths, rights in ((_READABLE, _READ_FILE | _READ_DIR | _EXECUTE), (_WRITABLE, _READ_FILE | _WRITE_FILE),
                          ((_home(program),), _READ_FILE | _EXECUTE)):  # fmt: skip
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            is_directory = os.path.isdir(f"/proc/self/fd/{fd}") or os.path.isdir(path)
            _allow(ruleset, fd, rights if is_directory else rights & _FILE_RIGHTS)
            os.close(fd)
    _allow(ruleset, 0, _READ_FILE)
    if workspace >= 0:
        _allow(ruleset, workspace, handled & (_WRITE_FILE | _READ_FILE | _READ_DIR | _MAKE_REMOVE | _REFER | _TRUNCATE))
    if _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"landlock_restrict_self: {os.strerror(number)}")
    os.close(ruleset)
    return True


def is_alone(uid: int, gid: int) -> bool:
    """Whether root could not become that user: this user namespace has no such one, or allows no change of groups."""

    def lacks(file: str, number: int) -> bool:
        with open(f"/proc/self/{file}", encoding="ascii") as lines:
            ranges = [tuple(map(int, line.split())) for line in lines]
        return not any(first <= number < first + many for first, _, many in ranges)

    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            denied = file.read().strip() == "deny"
        return denied or lacks("uid_map", uid) or lacks("gid_map", gid)
    except (OSError, ValueError):  # without /proc, or user namespaces
        return False


def _become(uid: int, gid: int, *, is_only: bool, may_read: bool) -> None:
    """Be an ordinary user; *may_read*: with the capability to read any file that Landlock allows, and no other.

    *is_only*: there is no other one to be here.
    """
    if not is_only:
        os.setgroups([])
        _prctl(_PR_SET_KEEPCAPS, int(may_read))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    # Whoever stays uid 0 has no more after exec than is left here, for that is what "no new privileges" is about.
    _only(1 << _CAP_DAC_READ_SEARCH if may_read else 0)
    if may_read:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH)


def _only(capabilities: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(capabilities, capabilities, capabilities, 0, 0, 0)
    if _libc.capset(header, data):
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")


def _filter_calls() -> bool:
    """Refuse (EPERM) what neither of the programs needs to read a file and write another."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None or sys.maxsize < 2**32:
        return False
    audit_arch, _, refused, own = known
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h: LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, RET|K
    kill, allow, refuse = 0x80000000, 0x7FFF0000, 0x00050000 | 1
    steps = [(load, 0, 0, 4), (equal, 1, 0, audit_arch), (end, 0, 0, kill), (load, 0, 0, 0)]
    own_steps: list[tuple[int, int, int, int]] = []
    for number in own:  # the number of the process, 0 for itself, is the low half of the first argument (seccomp(2))
        own_steps += [(equal, 0, 5, number), (load, 0, 0, 16), (equal, 2, 0, 0), (equal, 1, 0, os.getpid())]
        own_steps += [(end, 0, 0, refuse), (end, 0, 0, allow)]
    beyond = len(refused) + len(own_steps)
    steps += [(at_least, beyond + 1, 0, 0x40000000)]  # x32 has numbers of its own
    steps += [(equal, beyond - at, 0, number) for at, number in enumerate(refused)]
    steps += own_steps
    steps += [(end, 0, 0, allow), (end, 0, 0, refuse)]
    instructions = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), instructions)
    address = ctypes.addressof(program)
    return not _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.c_ulong(address))


def _close_others(keep: int) -> None:
    """Nothing that happens to be open here goes on to the program: only standard input, output and error."""
    if keep > 2:
        fcntl.fcntl(keep, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        os.closerange(3, keep)
    os.closerange(max(keep, 2) + 1, _MOST_FDS)


def cage(settings: dict[str, int], program: str) -> str:
    """Make it. Returns what the kernel gave, for `REPORT`. Raises OSError or ValueError: it cannot be made."""
    workspace = settings.get("workspace", -1)
    _close_others(workspace)
    for number in (signal.SIGALRM, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # It survives exec (setitimer(2)): the end of whoever outlives the daemon that would have stopped it.
    signal.setitimer(signal.ITIMER_REAL, settings["alarm"])
    _be_modest()
    is_root = os.geteuid() == 0
    is_only = is_root and is_alone(settings["uid"], settings["gid"])
    got = []
    if is_root and _own_network():
        got.append("netns")
    os.umask(0o022)
    if is_root and _own_files(program, workspace):
        got.append("mntns")
        if workspace >= 0:
            fd = os.open(_WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.dup2(fd, workspace, inheritable=False)
            os.close(fd)
    os.umask(0o077)
    if workspace >= 0:
        os.fchdir(workspace)
    else:
        os.chdir("/")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    is_confined = _confine(program, workspace)
    if is_confined:
        got.append("landlock")
    if is_root:
        if settings["uid"] <= 0 or settings["gid"] <= 0:
            raise ValueError("root runs nothing on files of others: name an ordinary user")
        if is_only and not is_confined and "mntns" not in got:
            raise ValueError("root of a user namespace without other users: that takes Landlock, or a mount namespace")
        may_read = bool(settings.get("reopen")) and is_confined
        _become(settings["uid"], settings["gid"], is_only=is_only, may_read=may_read)
        got.append("alone" if is_only else "user")
    _limit(settings)
    if _filter_calls():
        got.append("seccomp")
    return " ".join(got)


def _run_own(function: Callable[..., None], words: list[str]) -> NoReturn:
    """Have recfs's own code read standard input, in this process."""
    code = 1
    try:
        function(*words)
        sys.stdout.flush()
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)


def main() -> None:
    """Run the program named in the arguments, caged; does not return."""
    try:
        at = sys.argv.index("--")
        settings = {name: int(value) for name, _, value in (word.partition("=") for word in sys.argv[1:at])}
        command = sys.argv[at + 1 :]
        own: dict[str, Any] = {}
        if command[0] == OWN:
            exec(command[1], own)  # what it imports could not be read any more
        got = cage(settings, sys.executable if own else command[0])
        os.write(2, f"{REPORT} {got}\n".encode("ascii"))
        if own:
            _run_own(own["main"], command[2:])
        os.execve(command[0], command, {})
    except (OSError, ValueError, KeyError, IndexError) as error:
        os.write(2, f"{REPORT} failed: {error}\n".encode("utf-8", "backslashreplace"))
    os._exit(FAILED)


if __name__ == "__main__":
    main()
