"""The FUSE session over real mounts: what the kernel then does by itself, and that without it everything works."""

import contextlib
import errno
import itertools
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recfs.fuse import interpose
from tests.helpers.fuse_device import fuse_device_for_all

from .clients import need_root, pattern, skip
from .harness import lazy_unmount, mounted

pytestmark = [pytest.mark.fuse, pytest.mark.modeless, pytest.mark.timeout(60)]

SESSION_FS = Path(__file__).resolve().parents[1] / "helpers" / "session_fs.py"
END_S = 20
STUCK_S = 40
NOBODY = 65534
_numbers = itertools.count(1)


class Mirror:
    """A mounted `session_fs` in its own process."""

    def __init__(
        self, base: Path, settings: dict[str, Any], env: dict[str, str], prefix: list[str], source: Path | None
    ) -> None:
        self.source = source or base / "source"
        self.path = base / "mnt"
        base.mkdir()
        for directory in (self.source, self.path):
            directory.mkdir(exist_ok=True)
            if prefix:
                os.chown(directory, NOBODY, NOBODY)
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(SESSION_FS), str(self.source), str(self.path), json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | env,
        )
        # A caller stuck in a request that nobody answers cannot be interrupted; without a daemon it gets an error.
        self.watchdog = threading.Timer(STUCK_S, self.process.kill)
        self.watchdog.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=END_S)
        self.told: dict[str, Any] = json.loads(line)

    def requests(self) -> dict[str, int]:
        """How many requests of each kind came."""
        return dict.fromkeys(("read", "write", "flush", "readdir", "opendir", "lookup", "getattr"), 0) | json.loads(
            os.getxattr(self.path, "user.requests")
        )

    def umount(self) -> None:
        """Unmount; the process ends well by itself, and has let go of everything."""
        subprocess.run(["fusermount3", "-u", self.path], check=True, timeout=END_S)
        self.ended()
        assert not mounted(self.path)

    def ended(self) -> None:
        out, err = self.process.communicate(timeout=END_S)
        assert (self.process.returncode, err) == (0, "")
        assert json.loads(out) == []

    def close(self) -> None:
        self.watchdog.cancel()
        self.process.kill()
        self.process.wait(END_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        lazy_unmount(self.path)


Start = Callable[..., Mirror]


@pytest.fixture
def start(workspace: Path) -> Iterator[Start]:
    """`start(source=None, without="", prefix=[], env={}, **settings)`: a mirror that answers."""
    running: list[Mirror] = []

    def begin(
        source: Path | None = None,
        without: str = "",
        prefix: list[str] | None = None,
        env: dict[str, str] | None = None,
        **settings: Any,
    ) -> Mirror:
        base = workspace / f"session{next(_numbers)}"
        hidden = {interpose.WITHOUT_VARIABLE: without}
        running.append(Mirror(base, settings, hidden | (env or {}), prefix or [], source))
        return running[-1]

    yield begin
    for mirror in reversed(running):
        mirror.close()
        shutil.rmtree(mirror.path.parent)


@pytest.fixture
def mirror(start: Start) -> Mirror:
    """A mirror with passthrough."""
    started = start()
    if not started.told["writes"]:
        skip(f"needs kernel passthrough: {started.told['why_not']}")
    return started


# --- what the kernel does by itself --------------------------------------------------------------------


def test_everything_is_on(mirror: Mirror) -> None:
    read_ahead = mirror.told.pop("read_ahead_bytes")
    assert mirror.told == {
        "wanted": "auto", "reads": True, "writes": True, "why_not": None, "killpriv": True, "open_flags": True,
        "interrupts": True,
        "max_background": 12_288, "summary": "reads and writes",
    }  # fmt: skip
    number = os.stat(mirror.path).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}/read_ahead_kb")
    assert read_ahead == int(setting.read_text()) * 1024 == 1 << 20
    mirror.umount()


def test_bytes_never_come_to_the_daemon(mirror: Mirror) -> None:
    content = pattern(3_000_000)
    (mirror.path / "file").write_bytes(content)
    assert (mirror.source / "file").read_bytes() == content
    assert (mirror.path / "file").read_bytes() == content
    with (mirror.path / "file").open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as view:
        view[1000:1005] = b"later"
        assert view[2_999_000:] == content[2_999_000:]
        view.flush()
    assert (mirror.source / "file").read_bytes()[1000:1005] == b"later"
    requests = mirror.requests()
    assert (requests["read"], requests["write"]) == (0, 0)
    mirror.umount()


def test_files_open_at_once_share_the_backing_file(mirror: Mirror) -> None:
    with (mirror.path / "file").open("wb", buffering=0) as writer, (mirror.path / "file").open("rb", 0) as reader:
        for number in range(50):
            writer.write(b"%d;" % number)
            assert reader.read() == b"%d;" % number
    os.unlink(mirror.path / "file")
    assert mirror.requests()["read"] == 0


def test_readers_send_no_flush(mirror: Mirror) -> None:
    (mirror.path / "file").write_bytes(b"x")
    flushes = mirror.requests()["flush"]
    assert flushes > 0
    for _ in range(5):
        assert (mirror.path / "file").read_bytes() == b"x"
    assert mirror.requests()["flush"] == flushes


def test_a_directory_is_listed_once(mirror: Mirror) -> None:
    names = {f"file{number}" for number in range(500)}
    for name in names:
        (mirror.path / name).touch()
    assert set(os.listdir(mirror.path)) == names
    before = mirror.requests()
    assert before["readdir"] > 0
    assert set(os.listdir(mirror.path)) == names
    after = mirror.requests()
    assert (after["readdir"], after["opendir"]) == (before["readdir"], before["opendir"] + 1)


def test_a_created_file_is_known_without_asking(mirror: Mirror) -> None:
    before = mirror.requests()
    fd = os.open(mirror.path / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    found, real = os.fstat(fd), os.lstat(mirror.source / "new")
    for name in (
        "st_mode",
        "st_nlink",
        "st_uid",
        "st_gid",
        "st_size",
        "st_blocks",
        "st_rdev",
        "st_mtime_ns",
        "st_ctime_ns",
    ):
        assert getattr(found, name) == getattr(real, name), name
    assert os.stat(mirror.path / "new").st_ino == found.st_ino
    after = mirror.requests()
    assert (after["getattr"], after["lookup"]) == (before["getattr"], before["lookup"] + 1)  # free for the name, once
    os.close(fd)


@pytest.mark.parametrize(("without", "asked"), [("passthrough", 0), ("passthrough,killpriv", 20)])
def test_writes_ask_for_capabilities_only_without_killpriv(start: Start, without: str, asked: int) -> None:
    mirror = start(without=without)
    assert mirror.told["killpriv"] is ("killpriv" not in without)
    with (mirror.path / "file").open("wb", buffering=0) as stream:
        stream.write(b"first")
        before = mirror.requests()["answered"]
        for _ in range(20):
            stream.write(b"more")
        assert mirror.requests()["answered"] - before == asked


def test_python_never_hears_of_capabilities(mirror: Mirror) -> None:
    before = mirror.requests()["answered"]
    for number in range(20):
        with (mirror.path / f"file{number}").open("wb", buffering=0) as stream:
            stream.write(b"first")
            stream.write(b"more")
    requests = mirror.requests()
    assert requests["answered"] - before == 20, "once for each new inode"
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(mirror.path / "file0", "security.capability")
    assert mirror.requests()["answered"] - before == 21
    assert requests.get("getxattr", 0) == 0
    for name in ("security.capabilit", "security.capability2", "user.capability"):
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(mirror.path / "file0", name)
    assert mirror.requests()["getxattr"] == 3
    mirror.umount()


# --- requests pyfuse3 does not know --------------------------------------------------------------------


@pytest.fixture
def ranges(start: Start) -> Mirror:
    """A mirror that answers FALLOCATE, LSEEK and COPY_FILE_RANGE."""
    mirror = start(ranges=True)
    if not mirror.told["open_flags"]:
        skip(f"needs the extension in effect: {mirror.told['why_not']}")
    return mirror


def holes(path: Path) -> tuple[int, int]:
    """Where the first data and the first hole are."""
    with path.open("rb") as stream:
        return os.lseek(stream.fileno(), 0, os.SEEK_DATA), os.lseek(stream.fileno(), 0, os.SEEK_HOLE)


def test_they_are_handed_over_and_answered(ranges: Mirror) -> None:
    with (ranges.path / "file").open("w+b", buffering=0) as stream:
        os.posix_fallocate(stream.fileno(), 0, 1 << 20)
        assert os.fstat(stream.fileno()).st_size == 1 << 20
        os.ftruncate(stream.fileno(), 0)
        os.pwrite(stream.fileno(), b"data", 1 << 20)
    assert holes(ranges.path / "file") == (1 << 20, 0)
    content = pattern(250_000)
    (ranges.path / "from").write_bytes(content)
    with (ranges.path / "from").open("rb") as source, (ranges.path / "to").open("wb") as target:
        copied = []
        while not copied or copied[-1]:
            copied.append(os.copy_file_range(source.fileno(), target.fileno(), 1 << 20))
    assert copied == [100_000, 100_000, 50_000, 0]
    assert (ranges.path / "to").read_bytes() == content
    requests = ranges.requests()
    assert (requests["fallocate"], requests["lseek"], requests["copy_file_range"]) == (1, 2, 3)
    ranges.umount()


def test_a_refusal_is_an_answer_and_so_is_a_bug(ranges: Mirror) -> None:
    with (ranges.path / "file").open("w+b", buffering=0) as stream:
        for _ in range(3):  # nothing is remembered
            with pytest.raises(OSError, match="No such device or address"):
                os.lseek(stream.fileno(), 0, os.SEEK_DATA)
        for number in range(3):
            done = subprocess.run(["fallocate", "-p", "-l", "4096", stream.name], capture_output=True, check=False)
            assert b"Input/output error" in done.stderr, number
    assert ranges.requests()["fallocate"] == ranges.requests()["lseek"] == 3
    ranges.process.send_signal(signal.SIGTERM)
    _, err = ranges.process.communicate(timeout=END_S)
    assert err.count("ValueError: a bug") == 3
    assert "fallocate: unexpected error, answered with EIO" in err


def test_who_still_waits_at_the_end_is_answered(ranges: Mirror) -> None:
    (ranges.path / "file").write_bytes(b"x")
    command = ["fallocate", "-n", "-l", "4096", str(ranges.path / "file")]
    clients = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    while not ranges.requests().get("fallocate"):
        pass
    ranges.process.send_signal(signal.SIGTERM)
    ranges.ended()
    for client in clients:  # the other one waits for the file in the kernel, or for the answer
        _, err = client.communicate(timeout=END_S)
        assert b"not connected" in err or b"abort" in err


def test_an_aborted_connection_is_an_end(start: Start, workspace: Path) -> None:
    """fusectl's way out of a hang. The kernel says ECONNABORTED, also now and then for an ordinary umount."""
    need_root()
    mirror = start()
    number = os.minor(mirror.path.stat().st_dev)
    control = workspace / "fusectl"
    control.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "fusectl", control], check=True)
    try:
        (control / str(number) / "abort").write_text("1")
    finally:
        subprocess.run(["umount", control], check=True)
    mirror.ended()


@pytest.mark.parametrize(("without", "ranges"), [("", False), ("reply", True), ("reply", False)])
def test_without_handlers_the_kernel_does_what_it_can(start: Start, without: str, ranges: bool) -> None:
    mirror = start(without=without, ranges=ranges)
    with (mirror.path / "file").open("w+b", buffering=0) as stream:
        os.ftruncate(stream.fileno(), 200_000)
    assert holes(mirror.path / "file") == (0, 200_000)
    done = subprocess.run(["fallocate", "-l", "4096", mirror.path / "file"], capture_output=True, check=False)
    assert b"not supported" in done.stderr
    with (mirror.path / "file").open("rb") as source, (mirror.path / "to").open("wb") as target:
        while os.copy_file_range(source.fileno(), target.fileno(), 1 << 20):
            pass
    assert (mirror.path / "to").stat().st_size == 200_000
    assert not {"fallocate", "lseek", "copy_file_range"} & mirror.requests().keys()
    mirror.umount()


# --- less than everything ------------------------------------------------------------------------------


def use(mirror: Mirror) -> None:
    """What has to work on any mirror."""
    content = pattern(300_000, seed=7)
    (mirror.path / "file").write_bytes(content)
    with (mirror.path / "file").open("ab") as stream:
        stream.write(b"end")
    assert (mirror.path / "file").read_bytes() == content + b"end"
    assert (mirror.source / "file").stat().st_size == 300_003
    for number in range(100):
        (mirror.path / f"small{number}").write_bytes(b"%d" % number)
    assert len(os.listdir(mirror.path)) == len(os.listdir(mirror.path)) == 101
    os.unlink(mirror.path / "file")
    with pytest.raises(FileNotFoundError):
        os.stat(mirror.path / "file")
    mirror.umount()


@pytest.mark.parametrize(
    ("without", "why"),
    [
        ("passthrough", "does not offer FUSE passthrough; it takes Linux 6.9 or newer"),
        ("reply", "the extension recfs.fuse._fuse_reply is not there"),
        ("passthrough,killpriv,reply", "the extension recfs.fuse._fuse_reply is not there"),
    ],
)
def test_it_works_without(start: Start, without: str, why: str) -> None:
    mirror = start(without=without)
    assert (mirror.told["reads"], mirror.told["writes"]) == (False, False)
    assert why in mirror.told["why_not"]
    assert mirror.told["summary"] == f"off: {mirror.told['why_not']}"
    assert mirror.told["open_flags"] is ("reply" not in without)
    assert mirror.told["killpriv"] is ("killpriv" not in without)
    use(mirror)
    assert mirror.told["wanted"] == "auto"


@pytest.mark.parametrize(("wanted", "reads"), [("off", False), ("read", True)])
def test_less_may_be_wanted(start: Start, mirror: Mirror, wanted: str, reads: bool) -> None:
    less = start(wanted=wanted)
    assert (less.told["reads"], less.told["writes"], less.told["why_not"]) == (reads, False, None)
    assert less.told["open_flags"]
    use(less)


def test_what_is_not_staged_is_answered_as_pyfuse3_says(start: Start) -> None:
    mirror = start(wanted="off")
    assert mirror.told["open_flags"]
    (mirror.source / "file").write_bytes(b"kept")
    assert (mirror.path / "file").read_bytes() == b"kept"
    before = mirror.requests()
    assert before["read"] > 0
    assert (mirror.path / "file").read_bytes() == b"kept"  # from the page cache: keep_cache was said
    after = mirror.requests()
    assert (after["read"], after["flush"]) == (before["read"], before["flush"] + 1)
    mirror.umount()


def test_without_fusermount_root_mounts_the_plain_way(start: Start) -> None:
    need_root()
    mirror = start(env={"PATH": "/nowhere"})
    assert "install the package fuse3" in mirror.told["why_not"]
    assert (mirror.told["reads"], mirror.told["killpriv"], mirror.told["max_background"]) == (False, False, 0)
    use(mirror)


def test_a_store_on_a_stacked_file_system_is_told(start: Start, mirror: Mirror) -> None:
    second = start(probe=str(mirror.path))
    assert "the store lies on a stacked file system" in second.told["why_not"]
    second.umount()


def test_another_pyfuse3_first_is_noticed(start: Start, outside: Path) -> None:
    # sitecustomize is imported by every Python that has it on its path
    (outside / "sitecustomize.py").write_text("import pyfuse3\n")
    mirror = start(env={"PYTHONPATH": str(outside)})
    assert mirror.told["reads"] == mirror.told["open_flags"]
    if not mirror.told["reads"]:
        assert "pyfuse3 does not use the extension's functions" in mirror.told["why_not"]
    use(mirror)


@pytest.fixture
def fuse_for_all() -> Iterator[list[str]]:
    """A command prefix below which every user may open /dev/fuse, as udev sets it up on most machines.

    Where the device is root's alone, that is a mount namespace with a device of its own; the machine keeps its.
    """
    with fuse_device_for_all() as entering:
        if isinstance(entering, str):
            skip(f"needs /dev/fuse for every user, and cannot make one: {entering}")
        yield entering


def test_a_user_without_privileges_mounts(start: Start, fuse_for_all: list[str]) -> None:
    need_root()
    prefix = [*fuse_for_all, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    can = subprocess.run([*prefix, sys.executable, "-c", "import pyfuse3"], capture_output=True, check=False)
    readable = subprocess.run([*prefix, "cat", SESSION_FS], capture_output=True, check=False)
    if can.returncode or readable.returncode:
        skip(f"needs a Python and a checkout that uid {NOBODY} can read: {sys.executable}, {SESSION_FS}")
    mirror = start(prefix=prefix, options=["default_permissions", "fsname=recfs", "subtype=recfs"])
    assert "needs CAP_SYS_ADMIN; run recfs as root" in mirror.told["why_not"]
    assert mirror.told["killpriv"]
    client = "echo hello >f; cat f; ls; rm f"
    done = subprocess.run([*prefix, "sh", "-c", client], cwd="/", env={"PWD": "/"}, capture_output=True, check=False)
    assert done.returncode != 0  # not there …
    script = f"cd {mirror.path} && {client}"
    done = subprocess.run([*prefix, "sh", "-c", script], capture_output=True, check=False, timeout=END_S)
    assert (done.stdout, done.stderr) == (b"hello\nf\n", b"")
    subprocess.run([*prefix, "fusermount3", "-u", mirror.path], check=True, timeout=END_S)
    mirror.ended()


def test_a_refused_mount_says_why(start: Start) -> None:
    mirror = start(options=["nonsense"])
    (refusal,) = mirror.told["refused"]
    assert refusal.endswith("(fusermount3: unknown option 'nonsense'); `recfs doctor` tells what is missing")
    assert mirror.process.wait(END_S) == 0


# --- clients that die ----------------------------------------------------------------------------------


def state_of(pid: int) -> str:
    """R, S, D ... (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def die_while_asking(path: Path, patience_s: float) -> None:
    """Send one request from another process and kill it when it has waited so long for the answer."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(OSError):
            os.getxattr(path, "user.any")
        os._exit(0)
    while state_of(pid) not in "SZ":
        pass
    threading.Event().wait(patience_s)  # the moment of death is the test's input
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_requests_taken_back_before_they_are_read_stop_nothing(start: Start) -> None:
    mirror = start(hog=True)
    if not mirror.told["open_flags"]:
        skip(f"needs the extension in effect: {mirror.told['why_not']}")
    chance = random.Random(1)
    for _ in range(100):
        die_while_asking(mirror.path, chance.uniform(0.0, 0.02))
        threading.Event().wait(0.04)  # a request sent at once would be there to be read instead
        if mirror.requests()["vanished"] >= 3:
            break
    else:
        pytest.fail("no client died between the moments its request was found and read")
    (mirror.path / "file").write_bytes(b"still here")
    assert (mirror.path / "file").read_bytes() == b"still here"
    mirror.umount()


@pytest.mark.parametrize("without", ["", "reply"])
def test_clients_killed_at_any_moment_stop_nothing(start: Start, without: str) -> None:
    mirror = start(without=without)

    def kill_some(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            command = ["getfattr", "-n", chance.choice(["user.any", "user.slow"]), mirror.path]
            client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            threading.Event().wait(chance.random() * 0.008)
            client.kill()
            client.wait(END_S)

    killers = [threading.Thread(target=kill_some, args=(seed,)) for seed in range(4)]
    for killer in killers:
        killer.start()
    for number in range(200):
        (mirror.path / f"alive{number % 10}").write_bytes(b"still here")
        assert (mirror.path / f"alive{number % 10}").read_bytes() == b"still here"
    for killer in killers:
        killer.join()
    assert mirror.requests()["getxattr"] > 0
    for left in mirror.path.iterdir():
        left.unlink()
    use(mirror)


# --- the end -------------------------------------------------------------------------------------------


def test_it_ends_without_unmounting_when_told(mirror: Mirror) -> None:
    mirror.process.send_signal(signal.SIGTERM)
    mirror.ended()
    assert mounted(mirror.path)
    with pytest.raises(OSError, match=r"not connected") as caught:
        os.listdir(mirror.path)
    assert caught.value.errno == errno.ENOTCONN


def test_no_child_can_keep_a_dead_mount_alive(mirror: Mirror) -> None:
    process = Path(f"/proc/{mirror.process.pid}")
    devices = [link.name for link in (process / "fd").iterdir() if os.readlink(link) == "/dev/fuse"]
    assert len(devices) == 2
    for number in devices:
        (flags,) = [
            line.split()[1] for line in (process / "fdinfo" / number).read_text().splitlines() if "flags" in line
        ]
        assert int(flags, 8) & os.O_CLOEXEC
        assert int(flags, 8) & os.O_NONBLOCK
    mirror.process.kill()
    mirror.process.wait()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mirror.path)
