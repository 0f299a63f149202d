"""Programs that read media are confined: what they may read, take, say and leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import ffmpeg
import pytest
import trio
import trio.testing

from recfs.core.media.formats import as_words, reading
from recfs.errors import MediaUnavailable
from recfs.media import runner as module
from recfs.media.modesty import SLICE_NS, be_modest
from recfs.media.runner import INPUT, Ended, Limits, Outcome, Runner
from recfs.media.sandbox import FAILED, NICE
from tests.helpers import machine
from tests.helpers.media import Samples
from tests.helpers.virtual_time import GUARD_S

pytestmark = [pytest.mark.slow, pytest.mark.needs("ffmpeg", "ffprobe")]  # they run programs

SHOW = ["-v", "error", "-show_entries", "format=duration,format_name", "-of", "json", *as_words(reading()), "-i", INPUT]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory, alone on PATH, where a test puts a program of its own under the name ffprobe."""
    folder = Path(tempfile.mkdtemp(prefix="recfs-programs-"))
    folder.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    yield folder
    shutil.rmtree(folder)


def program(folder: Path, script: str, *, seeks: bool = False) -> None:
    """Install a Python script as ffprobe; *seeks*: it says that it reads descriptors."""
    listing = "fd file" if seeks else "file"
    text = f"""\
        #!/usr/bin/python3 -IS
        import os, sys
        if sys.argv[1:] == ["-protocols"]:
            print("ffprobe version 7.1 Copyright (c)", file=sys.stderr)
            print({listing!r})
            sys.exit()
        """
    path = folder / "ffprobe"
    path.write_text(textwrap.dedent(text) + textwrap.dedent(script))
    path.chmod(0o755)


async def run(path: Path, *words: str, limits: Limits | None = None, runner: Runner | None = None) -> Outcome:
    fd = os.open(path, os.O_RDONLY)
    try:
        return await (runner or Runner(2)).run("ffprobe", words, fd, limits or Limits())
    finally:
        os.close(fd)


async def test_a_program_gives_way_to_all_others(programs: Path, tmp_path: Path) -> None:
    program(programs, "print(os.getpriority(os.PRIO_PROCESS, 0))")
    (tmp_path / "file").touch()
    assert int((await run(tmp_path / "file")).output) == NICE


def test_it_does_so_within_a_tenth_of_a_millisecond() -> None:
    """What it becomes has its slice, too (sched_setattr(2))."""
    sched = Path("/proc/self/sched")  # with CONFIG_SCHED_DEBUG
    if not sched.exists() or tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12):
        machine.skip("needs time slices of Linux 6.12, and a /proc/PID/sched")
    with subprocess.Popen(["sh", "-c", "read go; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        be_modest(child.pid)
        child.stdin.write(b"go\nx")
        child.stdin.flush()
        assert child.stdout.read(1) == b"x", "it is the other program by now"
        slices = [
            line.split(":")[1] for line in Path(f"/proc/{child.pid}/sched").read_text().splitlines() if "slice" in line
        ]
        child.stdin.close()
    assert [int(each) for each in slices] == [SLICE_NS]


# --- what it reads ---------------------------------------------------------------------------------------------------


async def test_a_file_is_read_by_its_descriptor_whatever_its_name_and_mode(
    media_samples: Samples, tmp_path: Path
) -> None:
    path = tmp_path / "secret.mp4"
    shutil.copy(media_samples["mp4"], path)
    path.chmod(0o600)
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    path.symlink_to("/etc/passwd")
    try:
        outcome = await Runner(1).run("ffprobe", SHOW, fd, Limits())
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0  # others read by it
    finally:
        os.close(fd)
    assert outcome.ended is Ended.WELL, outcome
    assert "mp4" in json.loads(outcome.output)["format"]["format_name"]


async def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video at all\n" * 1000)
    outcome = await run(path, *SHOW)
    assert outcome.ended is Ended.FAILED
    assert "Invalid data" in outcome.said
    assert "recfs-sandbox" not in outcome.said


async def test_nothing_but_the_file_can_be_opened(programs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    path = tmp_path / "a"
    path.write_bytes(b"this one")
    path.chmod(0o600)
    program(
        programs,
        f"""
        import json, socket
        def attempt(act, *args):
            try:
                act(*args)
                return "did it"
            except OSError as error:
                return error.strerror
        told = {{
            "itself": open("/proc/self/fd/0").read(),
            "beside": attempt(open, {str(secret)!r}),
            "shadow": attempt(open, "/etc/shadow"),
            "passwd": attempt(open, "/etc/passwd"),
            "directory": attempt(os.listdir, {str(tmp_path)!r}),
            "write": attempt(os.open, "/proc/self/fd/0", os.O_WRONLY),
            "made": attempt(os.open, "/tmp/recfs-made", os.O_WRONLY | os.O_CREAT),
            "socket": attempt(socket.socket, socket.AF_INET),
            "unix": attempt(socket.socket, socket.AF_UNIX),
            "session": attempt(os.setsid),
            "killing": attempt(os.kill, os.getppid(), 0),
            "root": attempt(os.setuid, 0),
            "environment": dict(os.environ),
            "fds": [fd for fd in range(64) if attempt(os.fstat, fd) == "did it"],
            "uid": [os.getuid(), os.getgid(), *os.getgroups()],
        }}
        print(json.dumps(told))
        """,
    )
    runner = Runner(1)
    outcome = await run(path, runner=runner)
    assert outcome.ended is Ended.WELL, outcome
    told = json.loads(outcome.output)
    assert told.pop("itself") == "this one"
    assert runner.identity is not None
    assert told.pop("uid") == list(runner.identity)
    assert told.pop("environment").keys() <= {"LC_CTYPE"}  # Python's own (PEP 538)
    assert told.pop("fds") == [0, 1, 2]
    is_alone = "mntns" in (await runner.program("ffprobe")).caged_by
    unseen = {told.pop(name) for name in ("beside", "shadow", "passwd", "directory")}
    assert unseen == {"No such file or directory" if is_alone else "Permission denied"}
    assert set(told.values()) == {"Permission denied", "Operation not permitted"}, told


async def test_other_files_are_neither_seen_nor_changed_by_their_names(programs: Path, tmp_path: Path) -> None:
    """Landlock speaks of opening alone: attributes, times, modes and what inotify tells are had by the name."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    os.setxattr(secret, "user.hint", b"hint")
    runner = Runner(1)
    if runner.identity is not None:
        os.chown(secret, *runner.identity)
    before = secret.stat()
    path = tmp_path / "a"
    path.write_bytes(b"this one")
    program(
        programs,
        f"""
        import ctypes, json
        libc, secret = ctypes.CDLL(None, use_errno=True), {str(secret)!r}
        def attempt(act, *args):
            try:
                act(*args)
                return "did it"
            except OSError as error:
                return error.strerror
        def watch():
            if libc.inotify_add_watch(libc.inotify_init1(0), {str(tmp_path)!r}.encode(), 0xFFF) < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        os.chdir("/")
        told = {{
            "seen": attempt(os.stat, secret),
            "above": attempt(os.stat, "../.." + secret),
            "read": attempt(os.getxattr, secret, "user.hint"),
            "read through the file": attempt(os.getxattr, 0, "user.hint"),
            "listed": attempt(os.listxattr, secret),
            "set": attempt(os.setxattr, secret, "user.hint", b"other"),
            "removed": attempt(os.removexattr, secret, "user.hint"),
            "mode": attempt(os.chmod, secret, 0),
            "owner": attempt(os.chown, secret, os.getuid(), os.getgid()),
            "times": attempt(os.utime, secret, (0, 0)),
            "watched": attempt(watch),
        }}
        print(json.dumps(told))
        """,
    )
    outcome = await run(path, runner=runner)
    assert outcome.ended is Ended.WELL, outcome
    told = json.loads(outcome.output)
    caged_by = (await runner.program("ffprobe")).caged_by
    assert ("mntns" in caged_by) == ("netns" in caged_by)
    if "mntns" in caged_by:
        assert {told.pop("seen"), told.pop("above")} == {"No such file or directory"}
    else:
        del told["seen"], told["above"]
    assert set(told.values()) == {"Operation not permitted"}, told
    after = secret.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_mode, before.st_mtime_ns, before.st_ctime_ns,
    )  # fmt: skip


async def test_nothing_of_its_own_is_left_mounted(media_samples: Samples) -> None:
    """What the cage mounts for itself stays in its namespace, and goes with it."""
    assert (await run(Path(media_samples["mp4"]), *SHOW)).ended is Ended.WELL
    mounted = [line.split(" - ")[-1].split()[1] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert len(mounted) > 1
    assert "recfs-media" not in mounted


async def test_no_program_touches_another_one_of_its_user(programs: Path, tmp_path: Path) -> None:
    """Whoever takes over a program by a recording would end, or starve, those that read other users' recordings."""
    path = tmp_path / "a"
    path.write_bytes(b"x")
    user = Runner(1).identity
    victim = subprocess.Popen(["/bin/sleep", "100"], **({"user": user[0], "group": user[1]} if user else {}))
    program(
        programs,
        f"""
        import ctypes, json, resource, signal, threading
        libc, victim = ctypes.CDLL(None, use_errno=True), {victim.pid}
        def attempt(act, *args):
            try:
                act(*args)
                return "did it"
            except (OSError, ValueError) as error:
                return getattr(error, "strerror", None) or str(error)
        def tgkill(process, signal_number):
            if libc.syscall(234 if os.uname().machine == "x86_64" else 131, process, victim, signal_number):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        told = {{
            "tgkill": attempt(tgkill, victim, 15),
            "limits": attempt(resource.prlimit, victim, resource.RLIMIT_NOFILE, (1, 1)),
            "affinity": attempt(os.sched_setaffinity, victim, {{0}}),
            "priority": attempt(os.setpriority, os.PRIO_PROCESS, victim, 19),
            "memory": attempt(os.memfd_create, "x"),
            "own limits": attempt(resource.prlimit, 0, resource.RLIMIT_NOFILE, (16, 16)),
            "own limits by number": attempt(resource.prlimit, os.getpid(), resource.RLIMIT_NOFILE, (16, 16)),
        }}
        thread = threading.Thread(target=print, args=(json.dumps(told),))
        thread.start()
        thread.join()
        sys.stdout.flush()
        os.abort()
        """,
    )
    try:
        outcome = await run(path)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    assert (outcome.ended, outcome.code) == (Ended.CRASHED, -6), "it may end itself"
    told = json.loads(outcome.output)
    own = {name: what for name, what in told.items() if name.startswith("own")}
    assert own == {"own limits": "did it", "own limits by number": "did it"}
    others = {what for name, what in told.items() if not name.startswith("own")}
    assert others == {"Operation not permitted"}, told


async def test_a_descriptor_is_all_that_a_newer_ffmpeg_gets(programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"this one")
    path.chmod(0o600)
    program(
        programs,
        """
        import os, sys
        try:
            open("/proc/self/fd/0")
            print("opened", end=" ")
        except OSError as error:
            print(error.strerror, end=" ")
        print(sys.argv[1], os.read(0, 100).decode())
        """,
        seeks=True,
    )
    outcome = await run(path, INPUT)
    assert outcome.output == b"Permission denied fd: this one\n", outcome


# --- what it takes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "limits", "ended"),
    [
        ("import time; time.sleep(1000)", Limits(timeout_s=0.5), Ended.OUT_OF_TIME),
        ("while True: pass", Limits(cpu_s=1), Ended.OUT_OF_CPU),
        ("while True: print('y' * 1000)", Limits(), Ended.TOO_MUCH),
        ("b = bytearray(2 << 30)", Limits(), Ended.FAILED),
        ("import os; os.abort()", Limits(), Ended.CRASHED),
        ("import sys; sys.stderr.write('x' * 10_000_000 + 'last'); sys.exit(1)", Limits(), Ended.FAILED),
        ("import os, time; [os.fork() for _ in range(4)]; time.sleep(1000)", Limits(timeout_s=1.0), Ended.OUT_OF_TIME),
    ],
    ids=["sleeps", "computes", "writes", "allocates", "crashes", "chatters", "forks"],
)
async def test_a_run_takes_no_more_than_it_may_and_nothing_is_left_of_it(
    programs: Path, tmp_path: Path, script: str, limits: Limits, ended: Ended
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"bytes")
    program(programs, script)
    before = everybody(programs)
    with trio.fail_after(GUARD_S):
        outcome = await run(path, limits=limits)
    assert outcome.ended is ended, outcome
    assert len(outcome.output) <= limits.output_bytes
    assert len(outcome.said) <= module.SAID_BYTES
    assert before == []
    await all_gone(programs)


async def all_gone(programs: Path) -> None:
    """Wait until the kernel has carried out what was killed."""
    with trio.fail_after(GUARD_S):
        while everybody(programs):  # noqa: ASYNC110  # it tells nobody
            await trio.sleep(0.01)


def everybody(programs: Path) -> list[str]:
    """Command lines of processes that run what a test has installed."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(programs) in text:
            found.append(text)
    return found


async def test_nothing_is_left_of_a_run_that_is_cancelled(programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"bytes")
    program(programs, "import os, time; os.fork(); time.sleep(1000)")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, path)
        with trio.fail_after(GUARD_S):
            while len(everybody(programs)) < 2:  # noqa: ASYNC110  # it tells nobody
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    await all_gone(programs)


async def test_no_more_run_at_a_time_than_there_are_workers(programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"bytes")
    program(programs, "import time; time.sleep(0.3); print(time.monotonic())")
    runner, outcomes = Runner(2), []

    async def one() -> None:
        outcomes.append(await run(path, runner=runner))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        assert runner.limiter.statistics().borrowed_tokens == 2
        assert runner.limiter.statistics().tasks_waiting == 2
    assert [outcome.ended for outcome in outcomes] == [Ended.WELL] * 4


def caged(*settings: str, command: tuple[str, ...], before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    """Run the cage by itself; later settings count."""
    words = ["uid=65534", "gid=65534", "cpu=5", "memory=1000000000", "file=0", "descriptors=64", "processes=512"]
    return subprocess.run(
        [*before, sys.executable, "-I", "-S", module.SANDBOX, *words, *settings, "--", *command],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False,
    )  # fmt: skip


def test_a_program_whose_daemon_is_gone_ends_by_itself() -> None:
    ended = caged("alarm=1", command=("/bin/sleep", "1000"))
    assert ended.returncode == -signal.SIGALRM, ended


def test_root_is_never_what_reads_media() -> None:
    ended = caged("alarm=5", "uid=0", "gid=0", command=("/bin/echo", "ran"))
    assert ended.returncode == (FAILED if os.geteuid() == 0 else 0), ended


IN_A_NAMESPACE_OF_ONE = ("unshare", "--user", "--map-root-user")
"""What `unshare -r` makes: root without any other user, who is an ordinary one outside."""


@pytest.fixture
def only_one() -> tuple[str, ...]:
    """How a program is started there."""
    refused = subprocess.run([*IN_A_NAMESPACE_OF_ONE, "true"], capture_output=True, timeout=20, check=False)
    if refused.returncode != 0:
        machine.skip(f"needs user namespaces: {refused.stderr.decode()}")
    return IN_A_NAMESPACE_OF_ONE


@pytest.mark.parametrize(("reopen", "capabilities"), [(0, 0), (1, 1 << 2)])
def test_root_of_a_namespace_without_other_users_keeps_no_more_than_it_needs(
    only_one: tuple[str, ...], tmp_path: Path, reopen: int, capabilities: int
) -> None:
    """It cannot become another user, and is held by all else that there is; CAP_DAC_READ_SEARCH is within Landlock."""
    secret = tmp_path / "secret"
    secret.write_text("of somebody")
    script = (
        "import ctypes, sys\n"
        "libc, held = ctypes.CDLL(None), (ctypes.c_uint32 * 6)()\n"
        "assert not libc.capget((ctypes.c_uint32 * 2)(0x20080522, 0), held)\n"
        "print(held[0] | held[3] << 32, held[1] | held[4] << 32, libc.prctl(39, 0, 0, 0, 0))\n"  # PR_GET_NO_NEW_PRIVS
        f"print(open({str(secret)!r}).read())\n"
    )
    command = ("/usr/bin/python3", "-I", "-S", "-c", script)
    ended = caged("alarm=5", f"reopen={reopen}", command=command, before=only_one)
    assert ended.stdout.decode().split() == [f"{capabilities}", f"{capabilities}", "1"], ended
    assert b"Error: " in ended.stderr, ended
    had = set(ended.stderr.decode().splitlines()[0].split()[1:])
    assert "user" not in had
    assert {"alone", "seccomp"} <= had
    assert had & {"landlock", "mntns"}


def test_recordings_are_looked_into_there(only_one: tuple[str, ...], media_samples: Samples, tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    shutil.copy(media_samples["mp4"], file)
    file.chmod(0)
    code = (
        "import os, sys, trio\n"
        "from recfs.media.runner import INPUT, Limits, Runner\n"
        "runner = Runner(1)\n"
        "assert runner.identity is None\n"
        "words = ['-v', 'error', '-show_entries', 'format=nb_streams', '-i', INPUT]\n"
        "outcome = trio.run(runner.run, 'ffprobe', words, os.open(sys.argv[1], os.O_RDONLY), Limits())\n"
        "print(outcome)\n"
    )
    ended = subprocess.run(
        [*only_one, sys.executable, "-c", code, str(file)], capture_output=True, timeout=60, check=False, text=True
    )
    assert "nb_streams=2" in ended.stdout, ended


# --- what it writes --------------------------------------------------------------------------------------------------


@pytest.fixture
def workspace() -> Iterator[Path]:
    """A directory of the user whom programs run as."""
    folder = Path(tempfile.mkdtemp(prefix="recfs-workspace-"))
    identity = Runner(1).identity
    if identity is not None:
        os.chown(folder, *identity)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("most", "ended"), [(1 << 20, Ended.WELL), (1000, Ended.TOO_MUCH)])
async def test_ffmpeg_writes_to_its_workspace_alone_and_no_more_than_it_may(
    media_samples: Samples, workspace: Path, most: int, ended: Ended
) -> None:
    stream = ffmpeg.input(INPUT, **reading()).output("out.wav", f="wav", ac=1, ar=8000)
    words = ["-nostdin", "-v", "error", *stream.get_args()]
    source, target = os.open(media_samples["mp4"], os.O_RDONLY), os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
    try:
        outcome = await Runner(1).run("ffmpeg", words, source, Limits(file_bytes=most), workspace_fd=target)
        beside = await Runner(1).run(
            "ffmpeg", [*words[:-1], f"{workspace.parent}/recfs-out.wav"], source, Limits(file_bytes=most),
            workspace_fd=target,
        )  # fmt: skip
    finally:
        os.close(source)
        os.close(target)
    assert outcome.ended is ended, outcome
    assert [path.name for path in workspace.iterdir()] == ["out.wav"]
    assert (workspace / "out.wav").stat().st_size <= most
    assert beside.ended is Ended.FAILED
    assert not (workspace.parent / "recfs-out.wav").exists()


# --- what there is ---------------------------------------------------------------------------------------------------


async def test_a_program_that_is_not_there_is_told_and_found_once_it_is(programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"bytes")
    runner = Runner(1)
    with pytest.raises(MediaUnavailable, match="ffprobe is not on the daemon's PATH: install ffmpeg"):
        await run(path, runner=runner)
    program(programs, "print('ran')")
    runner.look_again()
    assert (await run(path, runner=runner)).output == b"ran\n"
    found = await runner.program("ffprobe")
    assert (found.version, found.seeks) == ("7.1", False)


async def test_one_that_cannot_be_run_is_told(programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"bytes")
    (programs / "ffprobe").write_text("no program")
    (programs / "ffprobe").chmod(0o755)
    with pytest.raises(MediaUnavailable, match="ffprobe"):
        await run(path)
