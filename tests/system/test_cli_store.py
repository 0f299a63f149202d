"""Which store a command finds, and who answers when no daemon runs."""

import errno
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

import recfs
import recfs.api
from recfs import errors
from recfs.cli.common import methods, store
from recfs.cli.common.options import Invocation
from recfs.cli.common.store import locate, open_store
from recfs.config import S3Section, config_for_root, plain
from recfs.core.access.methods import METHODS
from tests.system.fake_daemon import ANSWERS, STATUS, FakeDaemon, run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def stopped_store(root: Path) -> Path:
    (root / ".recfs").mkdir(parents=True)
    (root / ".recfs" / "catalogue.db").touch()
    return root


# --- without a daemon ---------------------------------------------------------------------------------------


def _replace_module(monkeypatch: pytest.MonkeyPatch, package: Any, name: str, **members: Any) -> None:
    fake = SimpleNamespace(**members)
    monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", fake)
    monkeypatch.setattr(package, name, fake, raising=False)


def _summarize(monkeypatch: pytest.MonkeyPatch, **summaries: Any) -> None:
    """Have these say what is in a catalogue; each is given a snapshot that is the store's root."""
    monkeypatch.setattr(store, "reports_at", lambda root: SimpleNamespace(reading=lambda: nullcontext(root)))
    _replace_module(monkeypatch, recfs.api, "summaries", **summaries)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_answered_without_a_daemon_or_says_that_it_takes_one(
    stopped_store: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The catalogue is asked, or the store is taken into use for it, or whoever asks is told what it takes."""
    monkeypatch.setattr(store, "reports_at", lambda root: SimpleNamespace(reading=lambda: nullcontext(root)))
    here = store.Store(stopped_store)
    if method in methods.LIVE_ONLY:
        assert method not in methods.WRITING
        with pytest.raises(errors.DaemonNotRunning, match=f"no daemon runs on {stopped_store}; ."):
            here.call(method)
    else:
        question = here._question(method, defaultdict(lambda: None))
        assert (question is None) == (method in methods.WRITING)


def test_reading_commands_read_the_catalogue(stopped_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def reader(name: str) -> Callable[..., Any]:
        def read(snapshot: Path, *rest: Any) -> Any:
            assert snapshot == stopped_store
            if rest and hasattr(rest[0], "root"):
                assert rest[0].root == stopped_store
                rest = rest[1:]
            asked.append((name, *rest))
            return ANSWERS[name]

        return read

    readers = {name: reader(name) for name in ("status", "quota_show", "quota_check", "info", "ls_files")}
    _summarize(monkeypatch, **readers)
    for args in (
        ["status"],
        ["quota", "show", "5"],
        ["quota", "check"],
        ["info", "users/5"],
        ["ls-files", "-r"],
    ):
        result = run(*args, "--root", stopped_store)
        assert result.exit_code == 0, result.output
    assert asked == [
        ("status",),
        ("quota_show", "5"),
        ("quota_check",),
        ("info", "users/5"),
        ("ls_files", "", True, None, False),
    ]


def test_the_status_of_a_stopped_store_says_so(stopped_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = STATUS | {"mode": "offline", "pid": None, "mountpoint": None, "uptime_s": None, "pipeline": None}
    _summarize(monkeypatch, status=lambda snapshot, config: status)
    result = run("status", "--root", stopped_store)
    assert result.exit_code == 0
    assert "not running" in result.stdout


@pytest.mark.parametrize(("sealing", "shown"), [(2, "2 sealing, 1 settling"), (0, "nothing waits")])
def test_the_pipeline_of_a_stopped_store_waits_for_a_daemon(
    stopped_store: Path, monkeypatch: pytest.MonkeyPatch, sealing: int, shown: str
) -> None:
    pipeline = {"sealing": sealing, "settling": sealing // 2, "hashing_bytes": 7 * sealing, "dirty": 0}
    status = STATUS | {"mode": "offline", "pid": None, "mountpoint": None, "uptime_s": None, "pipeline": pipeline}
    _summarize(monkeypatch, status=lambda snapshot, config: status)
    [line] = [
        line for line in run("status", "--root", stopped_store).stdout.splitlines() if line.startswith("pipeline")
    ]
    assert shown in line
    assert ("nobody works on it before the next mount" in line) == (sealing > 0)
    assert "unsaved" not in line


def test_writing_commands_open_the_store_themselves(stopped_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def answer(method: str, **params: Any) -> Any:
        asked.append((method, params))
        return ANSWERS[method]

    @contextmanager
    def offline(config: Any) -> Iterator[Any]:
        assert config.root == stopped_store
        yield SimpleNamespace(call=answer)

    _replace_module(monkeypatch, recfs, "offline", offline=offline)
    for args in (
        ["quota", "set", "5", "--max-files", "7"],
        ["quota", "check", "--repair"],
        ["user", "add", "5", "--uid", "3999999999", "--mode", "2770"],
        ["user", "remove", "5", "--keep-files"],
        ["sweep", "temp"],
        ["sweep", "expired"],
        ["recording", "keep", "users/5/recordings/1"],
    ):
        result = run(*args, "--root", stopped_store)
        assert result.exit_code == 0, result.output
    assert asked == [
        ("quota_set", {"user": "5", "max_files": 7}),
        ("quota_check", {"repair": True}),
        ("user_add", {"user": "5", "uid": 3999999999, "gid": 3999999999, "mode": 0o2770}),
        ("user_remove", {"user": "5", "files": "keep"}),
        ("sweep_temp", {"dry_run": False}),
        ("sweep_expired", {"dry_run": False}),
        ("recording_keep", {"path": "users/5/recordings/1", "on": True, "note": None}),
    ]


@pytest.mark.parametrize(
    "args", [["drain"], ["sweep", "list"], ["sweep", "run", "temp"], ["probe", "users/5"]], ids=" ".join
)
def test_what_needs_a_daemon_says_so(stopped_store: Path, args: list[str]) -> None:
    result = run(*args, "--root", stopped_store)
    assert result.exit_code == 6
    assert "no daemon runs on" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["status"],
        ["drain"],
        ["queue", "retry", "--all"],
        ["quota", "set", "5", "--max-files", "7"],
        ["info", "users/5"],
    ],
)
def test_no_store(root: Path, args: list[str]) -> None:
    result = run(*args, "--root", root)
    assert result.exit_code == 4
    assert f"no recfs store at {root}; `recfs mount --root" in result.stderr
    assert not root.exists()


# --- finding the store --------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that answers like a mount of `root`, in a mount table of its own."""
    mount_point = tmp_path / "mo unt"
    (mount_point / "users" / "5").mkdir(parents=True)
    os.setxattr(mount_point, "user.recfs.root", os.fsencode(root))
    table = tmp_path / "mountinfo"
    escaped = str(mount_point).replace(" ", r"\040")
    table.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"40 21 0:50 / {escaped} rw,nosuid - fuse.recfs recfs rw,user_id=0\n"
        f"41 21 0:50 /users/5 {tmp_path}/bound rw - fuse.recfs recfs rw\n"
        f"42 21 0:51 / {tmp_path}/sshfs rw - fuse.sshfs host: rw\n"
    )
    monkeypatch.setattr("recfs.cli.common.where.MOUNTINFO", table)
    return mount_point


def test_a_path_in_a_mount_leads_to_its_store(mounted: Path, root: Path) -> None:
    for given, path in (
        ("", ""),
        ("users/5/x", "users/5/x"),
        ("users/../users/5", "users/5"),
        ("shared/", "shared"),
    ):
        place = locate(Invocation(), mounted / given)
        assert (place.store.root, place.path) == (root, path)


def test_a_bind_mount_of_a_subtree_keeps_its_place(mounted: Path, root: Path, tmp_path: Path) -> None:
    bound = tmp_path / "bound"
    bound.mkdir()
    os.setxattr(bound, "user.recfs.root", os.fsencode(root))
    assert locate(Invocation(), bound / "recordings").path == "users/5/recordings"
    assert locate(Invocation(), bound).path == "users/5"


def test_links_are_followed_up_to_the_last_name(mounted: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "short").symlink_to(mounted / "users")
    (mounted / "users" / "5" / "link").symlink_to("nowhere")
    assert locate(Invocation(), tmp_path / "short" / "5").path == "users/5"
    assert locate(Invocation(), tmp_path / "short" / "5" / "link").path == "users/5/link"


def test_the_working_directory_in_a_mount_leads_to_its_store(
    mounted: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mounted / "users" / "5")
    with FakeDaemon(root) as daemon:
        assert run("ls-files").exit_code == 0
        assert run("info", "x").exit_code == 0
        assert run("quota", "show").exit_code == 0
        assert run("status", "--root", mounted).exit_code == 0
    assert [params.get("path") for _method, params in daemon.asked] == ["users/5", "users/5/x", None, None]


def test_a_root_in_a_mount_is_refused_for_what_it_is(mounted: Path) -> None:
    result = run("mount", "--root", mounted / "users" / "new", "/nowhere")
    assert result.exit_code == 4
    assert f"lies in the recfs mount {mounted}: a store has to be on a disk" in result.stderr


def test_a_daemon_that_does_not_answer_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recfs.cli.common.store._QUIET_S", 0.01)
    monkeypatch.setattr("recfs.cli.common.store._TIMEOUT_S", 0.5)
    monkeypatch.setattr("recfs.cli.common.store._TIMEOUT_MARGIN_S", 0.5)

    async def hang(params: dict[str, Any]) -> Any:
        await trio.sleep_forever()

    with FakeDaemon(root, {"status": hang}):
        result = run("status", "--root", root)
    assert result.exit_code == 6
    told, refused = result.stderr.splitlines()
    assert told == f"recfs: waiting for the daemon of {root}"
    assert "did not answer status in 0.5 s" in refused


def test_in_a_mount_the_settings_are_those_of_its_daemon(
    mounted: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for_root(root).model_copy(update={"min_free": 7 << 20, "s3": S3Section(bucket="media")})
    monkeypatch.chdir(mounted / "users")
    with FakeDaemon(root, {"settings": {"config": plain(config), "max_descriptors": 1024}}):
        for where in ((), ("--root", root), ("--root", mounted)):
            shown = run("config", "show", *where).stdout
            assert f"# the daemon of {root}" in shown
            assert re.search(r"^min_free +7 MiB$", shown, re.MULTILINE)
            assert re.search(r"^s3.bucket +media$", shown, re.MULTILINE)
            assert json.loads(run("config", "show", "--json", *where).stdout) == plain(config)
            assert "ok, store at" in run("config", "check", *where).stdout
    shown = run("config", "show", "--root", root).stdout
    is_the_daemons = re.search(r"^s3.bucket +media$", shown, re.MULTILINE) is not None
    assert (f"# --root {root}" in shown, is_the_daemons) == (True, False), "without a daemon: of the next start"


def test_a_path_on_disk_leads_to_its_store(stopped_store: Path) -> None:
    place = locate(Invocation(), stopped_store / "users" / "5" / "x")
    assert (place.store.root, place.path) == (stopped_store, "users/5/x")
    assert locate(Invocation(), stopped_store).path == ""


@pytest.mark.parametrize("chosen", [Invocation(), Invocation(root=Path("/nowhere"))])
def test_paths_that_lead_nowhere(stopped_store: Path, tmp_path: Path, chosen: Invocation) -> None:
    for path in (
        tmp_path / "x",
        stopped_store / ".recfs" / "staging",
        tmp_path / "sshfs" / "x",
        Path("../x"),
    ):
        with pytest.raises(errors.InvalidPath):
            locate(chosen, path)


def test_a_path_in_another_store_than_the_chosen_one(stopped_store: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidPath, match="not in the chosen one"):
        locate(Invocation(root=tmp_path / "other"), stopped_store / "users")


def test_a_path_longer_than_any_is_in_no_store() -> None:
    with pytest.raises(errors.InvalidPath, match="no recfs mount and no store"):
        locate(Invocation(), Path("/x" * 5000))


def test_a_directory_that_this_user_may_not_look_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's root is for its operator alone."""
    look = os.stat

    def refused(path: Any, *args: Any, **more: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(path, *args, **more)

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(errors.InvalidPath, match="cannot be looked into"):
        locate(Invocation(), tmp_path / "users" / "5")


def test_the_config_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one.conf", tmp_path / "two.conf"
    one.write_text('root = "/srv/one"\n')
    two.write_text('root = "/srv/two"\n')
    monkeypatch.setenv("RECFS_CONFIG", str(two))
    assert open_store(Invocation()).root == Path("/srv/two")
    assert open_store(Invocation(config=one)).root == Path("/srv/one")
    assert locate(Invocation(), Path("users/5")).store.root == Path("/srv/two")


def test_a_dead_mount_is_named_with_its_remedy(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _kill(monkeypatch)
    result = run("info", mounted / "users" / "5")
    assert result.exit_code == 5
    assert f"{mounted} is a dead mount" in result.stderr
    assert f"recfs umount {mounted}" in result.stderr


def _kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recfs.cli.common.where._ASK", "import os; os.write(1, b'!107')")  # ENOTCONN
