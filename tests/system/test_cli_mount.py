"""`recfs mount` and `recfs umount` around a daemon that is played: starting, waiting, giving up, clearing."""

import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import recfs
from recfs.api.client import ControlClient
from recfs.cli.common.exits import ChildFailed, kind_of
from recfs.cli.mounts.detach import start_detached
from recfs.cli.mounts.logs import set_up_logging
from recfs.errors import Busy, ConfigError, MountError, RootBusy, StoreError
from tests.system.fake_daemon import STATUS, FakeDaemon, run
from tests.system.s3_samples import FAILED, FAR, TOTALS

READY = """
import os, socket, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
notify.send(b"STATUS=replaying the journal")
notify.send(b"READY=1\\nSTATUS=serving")
print("serving", os.getsid(0) == os.getpid(), flush=True)
os.read(int(sys.argv[1]), 1)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def log(root: Path) -> Path:
    return root / ".recfs" / "log"


def _python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", code, *args]


# --- in the background --------------------------------------------------------------------------------------


def test_a_ready_daemon_goes_on_in_a_session_of_its_own(log: Path) -> None:
    # The child reads from an end it inherits; closing ours ends it, whatever becomes of this test.
    theirs, ours = os.pipe()
    os.set_inheritable(theirs, True)
    duplicate = os.dup(theirs)
    code = READY.replace("int(sys.argv[1])", "os.open(sys.argv[1], os.O_RDONLY)")
    pid = start_detached(_python(code, f"/proc/{os.getpid()}/fd/{duplicate}"), log, timeout_s=30)
    os.kill(pid, 0)
    os.close(ours)
    assert os.waitpid(pid, 0) == (pid, 0)
    os.close(theirs)
    os.close(duplicate)
    assert log.read_text() == "serving True\n"
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_a_start_that_takes_long_says_where_to_look(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recfs.cli.mounts.detach._QUIET_S", 0.01)
    with pytest.raises(MountError, match=r"was not ready within 0\.1 s"):
        start_detached(_python("import signal; signal.pause()"), log, timeout_s=0.1)
    assert capsys.readouterr().err == f"recfs: the daemon is not ready yet; {log} tells what it does\n"


def test_a_daemon_that_dies_first_has_its_message_and_code_repeated(log: Path) -> None:
    log.parent.mkdir(parents=True)
    log.write_text("recfs: an old failure\n")
    code = "import sys; print('a log line'); print('recfs: root is busy\\nfor long'); sys.exit(4)"
    with pytest.raises(ChildFailed) as caught:
        start_detached(_python(code), log, timeout_s=30)
    assert (caught.value.code, caught.value.message) == (4, "root is busy\nfor long")
    assert log.read_text().startswith("recfs: an old failure\n")


@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [
        ("raise SystemExit(3)", 3, "left no message"),
        ("pass", 5, "left no message"),
        ("print('what happened')", 5, "ended before it was ready:\nwhat happened"),
        ("import os; os.kill(os.getpid(), 9)", 5, "ended by SIGKILL"),
    ],
)
def test_a_daemon_that_dies_without_a_message(log: Path, code: str, exit_code: int, message: str) -> None:
    with pytest.raises(ChildFailed, match=re.escape(message)) as caught:
        start_detached(_python(code), log, timeout_s=30)
    assert caught.value.code == exit_code


TELLS = """
import os, sys
from recfs.cli.mounts.detach import failure_notified
from recfs.errors import RootBusy
try:
    with failure_notified():
        raise RootBusy("in use")
except RootBusy:
    print("recfs: in use")
    sys.exit(4)
"""


@pytest.mark.slow
def test_with_json_the_failure_of_a_daemon_has_the_kind_of_its_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text(f'root = "{root}"\n')
    real = start_detached
    monkeypatch.setattr(
        "recfs.cli.mounts.mount.start_detached", lambda command, log, **limits: real(_python(TELLS), log, **limits)
    )
    result = run("mount", "--config", conf, "-d", tmp_path / "mnt", "--json")
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["message"], error["exit_code"]) == ("RootBusy", "in use", 4)


@pytest.mark.parametrize(("code", "kind"), [(3, "ConfigError"), (5, "MountError"), (70, "InternalError")])
def test_a_daemon_that_says_nothing_has_the_kind_of_its_exit_code(log: Path, code: int, kind: str) -> None:
    with pytest.raises(ChildFailed) as caught:
        start_detached(_python(f"raise SystemExit({code})"), log, timeout_s=30)
    assert kind_of(caught.value) == kind


def test_a_failed_first_start_leaves_nothing_behind(root: Path, log: Path) -> None:
    with pytest.raises(ChildFailed):
        start_detached(_python("import sys; sys.exit('recfs: no')"), log, timeout_s=30)
    assert not root.exists()


def test_a_daemon_that_is_never_ready_is_stopped(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            children.append(self)

    monkeypatch.setattr("recfs.cli.mounts.detach.subprocess.Popen", Recorded)
    with pytest.raises(MountError, match=r"not ready within 0\.1 s.*--start-timeout"):
        start_detached(_python("import signal; signal.pause()"), log, timeout_s=0.1)
    assert [child.returncode for child in children] == [-signal.SIGTERM]


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write the log .*: Not a directory; name another with --log-file"):
        start_detached(_python("pass"), tmp_path / "file" / ".recfs" / "log", timeout_s=30)


def test_mount_d_hands_its_options_to_the_daemon(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def start(command: list[str], log: Path, *, timeout_s: float, new_session: bool) -> int:
        assert new_session
        started.append((command, log, timeout_s))
        return 4711

    monkeypatch.setattr("recfs.cli.mounts.mount.start_detached", start)
    monkeypatch.chdir(root.parent)
    result = run("mount", "--root", "store", "-d", "-v", "--start-timeout", "7s", "mnt", "--json")
    log = str(root / ".recfs" / "log")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "root": str(root),
        "mountpoint": str(root.parent / "mnt"),
        "pid": 4711,
        "log": log,
    }
    [(command, log_path, timeout_s)] = started
    assert command[1:7] == ["-P", "-m", "recfs", "mount", "--log-file", log]
    assert command[7:] == ["--root", str(root), "--verbose", "--", str(root.parent / "mnt")]
    assert (str(log_path), timeout_s) == (log, 7.0)


def test_mount_d_repeats_what_the_daemon_said(tmp_path: Path) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text(f'root = "{tmp_path}/store"\n')
    blocked = tmp_path / "log"
    blocked.mkdir()
    result = run("mount", "--config", conf, "-d", "--log-file", blocked, tmp_path / "mnt")
    assert result.exit_code == 4
    assert f"cannot write the log {blocked}" in result.stderr


# --- in the foreground --------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Play the daemon; what it was run with. An exception put in first is raised."""
    calls: list[Any] = []

    def play(settings: Any, mountpoint: Path, command: list[str], on_mounted: object) -> None:
        assert command[1:5] == ["-P", "-m", "recfs", "mount"]  # what a hand-over runs again
        if calls and isinstance(calls[0], Exception):
            raise calls[0]
        calls.append((settings.config.root, mountpoint))

    fake = SimpleNamespace(run=play)
    monkeypatch.setitem(sys.modules, "recfs.daemon", fake)
    monkeypatch.setattr(recfs, "daemon", fake, raising=False)
    monkeypatch.setattr("recfs.cli.mounts.mount.set_up_logging", lambda level, file: None)
    monkeypatch.chdir(tmp_path)
    return calls


def test_mount_runs_the_daemon(root: Path, runs: list[Any]) -> None:
    assert run("mount", "--root", "store", "mnt").exit_code == 0
    assert runs == [(root, root.parent / "mnt")]
    assert Path.cwd() == Path("/")


def test_mount_takes_the_mount_point_of_the_config(tmp_path: Path, runs: list[Any]) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text('root = "/srv/recfs"\nmountpoint = "/mnt/recordings"\n')
    assert json.loads(run("mount", "--config", conf, "--json").stdout)["mountpoint"] == "/mnt/recordings"
    assert runs == [(Path("/srv/recfs"), Path("/mnt/recordings"))]
    assert run("mount", "--config", conf, "--set", "mountpoint=/mnt/other").exit_code == 0
    assert runs[1] == (Path("/srv/recfs"), Path("/mnt/other"))
    refused = run("mount", "--config", conf, "--set", "min_fre=5")
    assert (refused.exit_code, "did you mean min_free?" in refused.stderr) == (3, True)


def test_mount_without_a_mount_point(root: Path, runs: list[Any]) -> None:
    result = run("mount", "--root", root)
    assert result.exit_code == 2
    assert "no mount point" in result.stderr


def test_a_daemon_that_refuses(root: Path, runs: list[Any]) -> None:
    runs.append(RootBusy(f"another daemon holds {root}"))
    result = run("mount", "--root", root, "mnt")
    assert (result.exit_code, result.stderr) == (4, f"recfs: another daemon holds {root}\n")


@pytest.fixture
def bare_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the test a root logger of its own to set up."""
    before = logging.root.level
    monkeypatch.setattr(logging.root, "handlers", [])
    yield
    for handler in logging.root.handlers:
        handler.close()
    logging.root.setLevel(before)


@pytest.mark.usefixtures("bare_logging")
def test_the_log_file_has_plain_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    set_up_logging("info", log)
    logging.getLogger("elsewhere").warning("name \udcff")
    logging.getLogger("elsewhere").debug("not this")
    line = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING elsewhere name \\udcff\n"
    assert re.fullmatch(line, log.read_text())


@pytest.mark.usefixtures("bare_logging")
def test_a_log_file_that_cannot_be_opened_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[log\]\.file"):
        set_up_logging("info", tmp_path)


# --- umount -------------------------------------------------------------------------------------------------


LOCAL = STATUS | {"s3": None, "open_files": []}


class PlayedMount:
    """A directory that answers like a mount, in a mount table of its own, with a process as its daemon."""

    def __init__(self, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.point = tmp_path / "mnt"
        self.point.mkdir()
        os.setxattr(self.point, "user.recfs.root", os.fsencode(root))
        self.table = tmp_path / "mountinfo"
        self.table.write_text(f"40 21 0:50 / {self.point} rw - fuse.recfs recfs rw\n")
        monkeypatch.setattr("recfs.cli.common.where.MOUNTINFO", self.table)
        self.process = subprocess.Popen(_python("import signal; signal.pause()"))
        monkeypatch.setattr(ControlClient, "peer_pid", lambda client: self.process.pid)
        tools = tmp_path / "bin"
        tools.mkdir()
        tool = tools / "fusermount3"
        tool.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/cleared\n: >{self.table}\n')
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        self.cleared = tmp_path / "cleared"

    def stop(self, params: dict[str, Any]) -> Any:
        """Answer, and end a moment later as a daemon does: unmounted first, then gone."""
        threading.Thread(target=self._end).start()
        return {"stopping": True}

    def die(self, params: dict[str, Any]) -> Any:
        """Answer, and end without unmounting."""
        self.process.kill()
        return {"stopping": True}

    def _end(self) -> None:
        self.table.write_text("")
        self.process.terminate()


@pytest.fixture
def played(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedMount]:
    mount = PlayedMount(tmp_path, root, monkeypatch)
    yield mount
    mount.process.kill()
    mount.process.wait()


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_umount_waits_for_the_daemon(played: PlayedMount, root: Path, options: list[str]) -> None:
    with FakeDaemon(root, {"stop": played.stop, "status": LOCAL}) as daemon:
        result = run("umount", played.point, *options, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "mountpoint": str(played.point),
        "unmounted": True,
        "was_dead": False,
        "left": None,
        "sealing_later": 0,
        "sealing_later_paths": [],
    }
    assert daemon.asked[:2] == [("status", {}), ("stop", {"force": bool(options), "uploads": True})]
    assert not played.cleared.exists()


def _far(**queue: int) -> dict[str, Any]:
    return LOCAL | {"s3": FAR | {"queue": dict.fromkeys(TOTALS, 0) | queue}}


def test_umount_waits_for_uploads_first_and_says_so(played: PlayedMount, root: Path) -> None:
    left = {"sealing": 1, "s3": {"totals": TOTALS, "rows": [FAILED]}}
    drained = iter([{"pending": 3, "left": left}, {"pending": 0}])
    answers = {"status": _far(), "drain": lambda params: next(drained), "stop": played.stop}
    with FakeDaemon(root, answers) as daemon:
        result = run("umount", played.point, "--timeout", "1m")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "waiting for 1 closed file to be committed; S3: 2 uploads, 1 deletion (1 running, 1 failed, 1 waiting), 6 MiB "
        f"not uploaded yet, 1 MiB sent; upload of {FAILED['path']} fails: the server said no; next try in 42s "
        "(3 so far)",
        f"{played.point}: unmounted",
    ]
    assert [method for method, _params in daemon.asked][:5] == ["status", "drain", "drain", "status", "stop"]
    assert daemon.asked[1] == ("drain", {"timeout_s": 2.0, "retries": False})
    assert daemon.asked[4] == ("stop", {"force": False, "uploads": False})


@pytest.mark.parametrize("pending", [0, 3])
def test_umount_leaves_what_fails_or_takes_too_long_to_the_next_mount(
    played: PlayedMount, root: Path, pending: int
) -> None:
    answers = {
        "status": _far(uploads=2, failed=2, unsent_bytes=1 << 20),
        "drain": {"pending": pending, "left": {}},
        "stop": played.stop,
    }
    with FakeDaemon(root, answers):
        result = run("umount", played.point, "--timeout", "0s")
    assert result.exit_code == 0, result.output
    assert "unmounted\nthe next mount goes on with S3: 2 uploads (2 failed), 1 MiB not uploaded yet" in result.stdout


def test_umount_tells_machines_what_is_left(played: PlayedMount, root: Path) -> None:
    answers = {"status": _far(uploads=2, failed=2), "drain": {"pending": 0}, "stop": played.stop}
    with FakeDaemon(root, answers):
        result = run("umount", played.point, "--json")
    assert json.loads(result.stdout)["left"]["failed"] == 2


def test_umount_with_open_files_does_not_wait_for_uploads_first(played: PlayedMount, root: Path) -> None:
    answers = {"status": _far() | {"open_files": STATUS["open_files"]}, "stop": Busy("1 file is open"), "drain": {}}
    with FakeDaemon(root, answers) as daemon:
        assert run("umount", played.point).exit_code == 5
    assert "drain" not in [method for method, _params in daemon.asked]


def test_umount_names_the_open_files(played: PlayedMount, root: Path) -> None:
    with FakeDaemon(root, {"stop": Busy("1 file is open"), "status": STATUS}):
        result = run("umount", played.point)
    assert result.exit_code == 5
    assert "recfs: 1 file is open:\n  users/5/recordings/143/source.mp4\nclose them, or use --force" in result.stderr


def test_umount_names_what_is_hashed_later(played: PlayedMount, root: Path) -> None:
    def stop(params: dict[str, Any]) -> Any:
        return played.stop(params) | {"sealing_later": 12, "sealing_later_paths": [f"users/5/{n}" for n in range(10)]}

    with FakeDaemon(root, {"stop": stop, "status": LOCAL}):
        result = run("umount", played.point)
    assert result.exit_code == 0, result.output
    assert "goes on with the hashing of 12 large files: users/5/0, users/5/1, " in result.stdout
    assert "users/5/9 and 2 more" in result.stdout


def test_umount_names_ten_open_files_and_counts_the_others(played: PlayedMount, root: Path) -> None:
    opened = [STATUS["open_files"][0] | {"path": f"users/5/{n}"} for n in range(1000)]
    refusal = Busy("1000 files are open: users/5/0, users/5/1, users/5/2, users/5/3, users/5/4 and 995 more")
    with FakeDaemon(root, {"stop": refusal, "status": STATUS | {"open_files": opened}}):
        result = run("umount", played.point)
    assert (result.stderr.count("users/5/"), "and 990 more" in result.stderr) == (10, True)


@pytest.mark.parametrize("as_json", [False, True])
def test_umount_says_at_once_why_it_waits_and_what_ends_it(played: PlayedMount, root: Path, as_json: bool) -> None:
    pipeline = STATUS["pipeline"] | {"problem": "catalogue /c: the disk is full", "files": []}
    answers = {"stop": {"stopping": True}, "status": LOCAL | {"pipeline": pipeline}}
    with FakeDaemon(root, answers):
        result = run("umount", played.point, "--timeout", "100ms", *(["--json"] if as_json else []))
    assert result.exit_code == 5
    for said in ("the catalogue cannot be written: catalogue /c: the disk is full", "the daemon ends after 2 min"):
        assert said in result.stderr
        assert as_json or said in result.stdout.splitlines()[0]


def test_umount_gives_up_waiting_but_not_the_daemon(played: PlayedMount, root: Path) -> None:
    with FakeDaemon(root, {"stop": {"stopping": True}, "status": LOCAL}):
        result = run("umount", played.point, "--timeout", "100ms")
    assert result.exit_code == 5
    assert "not gone after 0.1 s; the daemon goes on" in result.stderr
    assert played.process.poll() is None


def test_umount_clears_up_after_a_daemon_that_dies_stopping(played: PlayedMount, root: Path) -> None:
    with FakeDaemon(root, {"stop": played.die, "status": LOCAL}):
        result = run("umount", played.point)
    assert result.exit_code == 5
    assert "died while it stopped" in result.stderr
    assert played.cleared.read_text() == f"-uz {played.point}\n"


def test_umount_clears_what_a_daemon_that_stopped_in_order_had_to_leave(played: PlayedMount, root: Path) -> None:
    with FakeDaemon(root, {"stop": played.die, "status": LOCAL}):
        (root / ".recfs" / "lock").touch()  # without a number: signed off
        result = run("umount", played.point)
    assert (result.exit_code, result.stdout) == (0, f"{played.point}: unmounted\n")
    assert played.cleared.read_text() == f"-uz {played.point}\n"


@pytest.fixture
def gone(played: PlayedMount, root: Path) -> Path:
    """A configuration whose mount is not to be seen, though its daemon runs."""
    played.table.write_text("")
    config = played.point.with_name("recfs.conf")
    config.write_text(f'root = "{root}"\nmountpoint = "{played.point}"\n')
    return config


@pytest.mark.parametrize("how", ["--config", "--root", "--root and a mount point"])
def test_umount_ends_a_daemon_whose_mount_is_gone_from_here(
    played: PlayedMount, root: Path, gone: Path, how: str
) -> None:
    args = ["--config", gone] if how == "--config" else ["--root", root]
    if how.endswith("point"):
        args.append(played.point)
    with FakeDaemon(root, {"stop": played.stop, "status": LOCAL | {"mountpoint": str(played.point)}}) as daemon:
        result = run("umount", *args)
    assert result.exit_code == 0, result.output
    assert f"the daemon of {root} has stopped; its mount was gone from here" in result.stdout
    assert ("stop", {"force": False, "uploads": True}) in daemon.asked


def test_umount_ends_a_daemon_that_nothing_here_can_see(
    played: PlayedMount, root: Path, gone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container: neither its mount nor its process. Who holds the store tells."""
    monkeypatch.setattr(ControlClient, "peer_pid", lambda client: 0)
    answers = {"stop": {"stopping": True}, "status": LOCAL | {"mountpoint": str(played.point)}}
    with FakeDaemon(root, answers), (root / ".recfs" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run("umount", "--config", gone, "--timeout", "100ms")
        assert (result.exit_code, "is not gone after 0.1 s" in result.stderr) == (5, True)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert run("umount", "--config", gone).exit_code == 0


def test_umount_of_a_daemon_without_a_mount_that_has_files_open(played: PlayedMount, root: Path, gone: Path) -> None:
    status = LOCAL | {"mountpoint": str(played.point), "open_files": STATUS["open_files"]}
    with FakeDaemon(root, {"stop": Busy("1 file is open"), "status": status}):
        result = run("umount", "--config", gone)
    assert result.exit_code == 5
    assert "users/5/recordings/143/source.mp4\nclose them, or use --force" in result.stderr


def test_umount_of_one_mount_point_does_not_end_the_daemon_of_another(
    played: PlayedMount, root: Path, tmp_path: Path
) -> None:
    answers = {"stop": played.stop, "status": LOCAL | {"mountpoint": str(played.point)}}
    with FakeDaemon(root, answers) as daemon:
        result = run("umount", "--root", root, tmp_path / "other")
        assert result.exit_code == 5
        assert (
            f"nothing is mounted on {tmp_path}/other; {root} is mounted on {played.point}: `recfs umount"
            in result.stderr
        )
        assert "stop" not in [method for method, _params in daemon.asked]
        result = run("umount", "--root", root)
    assert (result.exit_code, result.stdout) == (0, f"{played.point}: unmounted\n")


def test_umount_of_a_daemon_that_does_not_listen_names_its_process(root: Path, gone: Path) -> None:
    (root / ".recfs").mkdir(parents=True)
    with (root / ".recfs" / "lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run("umount", "--config", gone)
    assert result.exit_code == 5
    assert "(process 4711) does not listen; `kill 4711` stops it" in result.stderr


def test_umount_of_a_root_that_no_daemon_serves(root: Path) -> None:
    result = run("umount", "--root", root)
    assert result.exit_code == 6
    assert f"no daemon runs on {root}, and no mount of it is left here" in result.stderr


def test_umount_clears_a_dead_mount(played: PlayedMount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recfs.cli.common.where._ASK", "import os; os.write(1, b'!107')")  # ENOTCONN
    result = run("umount", played.point)
    assert result.exit_code == 0
    assert "its daemon had ended without unmounting; cleared" in result.stdout
    assert played.cleared.read_text() == f"-uz {played.point}\n"


def test_umount_where_the_interpreter_may_not_be_run(played: PlayedMount, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation below a directory that is root's alone: told in a sentence."""
    monkeypatch.setattr("recfs.cli.common.where.sys.executable", f"{played.point}/not/here")
    result = run("umount", played.point)
    assert result.exit_code == 5
    assert "internal error" not in result.stderr
    assert "cannot be asked" in result.stderr or f"fusermount3 -u {played.point}" in result.stderr


def test_umount_of_a_mount_nobody_answers_for(played: PlayedMount) -> None:
    result = run("umount", played.point)
    assert result.exit_code == 5
    assert f"fusermount3 -u {played.point}" in result.stderr


def test_umount_takes_the_mount_point_of_the_config(tmp_path: Path) -> None:
    config = tmp_path / "recfs.conf"
    config.write_text(f'root = "{tmp_path}/store"\nmountpoint = "{tmp_path}/mnt"\n')
    assert f"nothing is mounted on {tmp_path}/mnt" in run("umount", "--config", config).stderr
    config.write_text(f'root = "{tmp_path}/store"\n')
    result = run("umount", "--config", config)
    assert result.exit_code == 6
    assert "no mount of it is left here" in result.output


def test_umount_of_something_else(played: PlayedMount, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert f"nothing is mounted on {other}" in run("umount", other).stderr
    played.table.write_text(f"40 21 0:50 / {other} rw - ext4 /dev/sda1 rw\n")
    result = run("umount", other)
    assert result.exit_code == 5
    assert "is a mount of ext4, not of recfs" in result.stderr
