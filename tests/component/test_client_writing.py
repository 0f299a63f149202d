"""recfs.client: atomic_write, next_version and temp_job, on a plain directory and on each event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from pathlib import Path
from unittest import mock

import anyio
import pytest

from recfs.client import InvalidName, NotAMount, VerifyFailed, atomic_write, next_version, places, temp_job, writing
from recfs.client.waiting import in_thread
from recfs.client.writing import rename_new
from tests.helpers.machine import skip

from .client import LOOPS, REC, all_below, run


@pytest.fixture
def tree(scratch: Path) -> Path:
    """A plain directory with a recording."""
    (scratch / REC).mkdir(parents=True)
    return scratch


@pytest.fixture
def rec(tree: Path) -> Path:
    return tree / REC


def fail_after(path: Path, error: type[BaseException] = RuntimeError) -> None:
    """Write something, and fail."""
    path.write_bytes(b"half")
    raise error("meant")


def replace_by_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


# --- atomic_write ------------------------------------------------------------------------------------------------


def test_nothing_is_seen_before_all_is_there(rec: Path) -> None:
    target = rec / "video.mp4"
    target.write_bytes(b"old")
    with atomic_write(target) as file:
        file.write(b"new " * 100_000)
        file.flush()
        assert target.read_bytes() == b"old"
        assert Path(file.name).parent == rec
        assert Path(file.name).name.startswith(".video.")
        assert file.name.endswith(".mp4")
    assert target.read_bytes() == b"new " * 100_000
    assert all_below(rec) == ["video.mp4"]


def test_bytes_and_directory_are_synced_in_that_order(rec: Path) -> None:
    done: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        done.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_fsync(descriptor)

    def rename(*args: object, **named: object) -> None:
        done.append("rename")
        real_rename(*args, **named)  # type: ignore[arg-type]

    writer = atomic_write(rec / "a", verify=lambda _: done.append("verify"))
    with mock.patch.object(os, "fsync", fsync), mock.patch.object(os, "rename", rename), writer as file:
        file.write(b"x")
    assert done == ["sync file", "verify", "rename", "sync directory"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit, SystemExit])
def test_an_error_leaves_nothing_and_the_old_file(rec: Path, error: type[BaseException]) -> None:
    target = rec / "a.json"
    target.write_bytes(b"old")
    with pytest.raises(error, match="meant"), atomic_write(target) as file:
        fail_after(Path(file.name), error)
    assert target.read_bytes() == b"old"
    assert all_below(rec) == ["a.json"]


@pytest.mark.parametrize("call", ["fsync", "rename", "stat", "fchmod", "open"])
def test_whatever_step_fails_nothing_is_left(rec: Path, call: str) -> None:
    target = rec / "a.json"
    target.write_bytes(b"old")
    before = len(os.listdir("/proc/self/fd"))
    real = getattr(os, call)

    def fail(*args: object, **named: object) -> object:
        if call == "open" and named.get("dir_fd") is None:
            return real(*args, **named)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with mock.patch.object(os, call, fail), pytest.raises(OSError, match="quota"), atomic_write(target) as file:
        file.write(b"new")
    assert target.read_bytes() == b"old"
    assert all_below(rec) == ["a.json"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_whose_a_file_is_stays_when_root_replaces_it(rec: Path) -> None:
    if os.geteuid() != 0:
        skip("needs root")
    target = rec / "a.json"
    target.write_bytes(b"old")
    os.chown(target, 20005, 20006)
    target.chmod(0o640)
    for mode in (None, 0o600):
        with atomic_write(target, mode=mode) as file:
            file.write(b"new")
        info = target.stat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (20005, 20006, mode or 0o640)
    with atomic_write(rec / "new.json") as file:
        file.write(b"new")
    assert (rec / "new.json").stat().st_uid == os.getuid()


def test_a_group_that_cannot_be_kept_gives_no_other_its_rights(rec: Path) -> None:
    target = rec / "a.json"
    target.write_bytes(b"old")
    target.chmod(0o664)
    before = os.stat(target)
    told = os.stat_result((*before[:4], before.st_uid + 1, before.st_gid + 1, *before[6:]))
    stats = os.stat

    def others(path: object, **named: object) -> os.stat_result:
        return told if path == "a.json" else stats(path, **named)  # type: ignore[call-overload,no-any-return]

    def refuse(*args: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with mock.patch.object(os, "stat", others), mock.patch.object(os, "fchown", refuse), atomic_write(target) as file:
        file.write(b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_what_does_not_pass_its_verification_is_not_shown(rec: Path) -> None:
    target = rec / "a.json"
    seen: list[bytes] = []

    def refuse(path: Path) -> bool:
        seen.append(path.read_bytes())
        return False

    with pytest.raises(VerifyFailed, match=r"a\.json"), atomic_write(target, verify=refuse) as file:
        file.write(b"all of it")

    def fail(path: Path) -> None:
        raise ValueError("not json")

    with pytest.raises(ValueError, match="not json"), atomic_write(target, verify=fail) as file:
        file.write(b"{")
    assert seen == [b"all of it"]
    assert all_below(rec) == []


def test_another_program_may_write_there_or_replace_it(rec: Path) -> None:
    with atomic_write(rec / "a.mp4") as file:
        Path(file.name).write_bytes(b"in scratch")
    assert (rec / "a.mp4").read_bytes() == b"in scratch"
    with atomic_write(rec / "a.mp4") as file:
        other = rec / "made-aside"
        other.write_bytes(b"another")
        other.rename(file.name)
    assert (rec / "a.mp4").read_bytes() == b"another"
    assert all_below(rec) == ["a.mp4"]


def test_what_is_no_regular_file_any_more_is_not_shown(rec: Path) -> None:
    (rec / "secret").write_bytes(b"s")
    with pytest.raises(VerifyFailed, match="no regular file"), atomic_write(rec / "a.mp4") as file:
        replace_by_link(Path(file.name), rec / "secret")
    assert all_below(rec) == ["secret"]


def test_modes_are_those_of_the_replaced_file_or_as_by_umask(rec: Path) -> None:
    target = rec / "a"
    umask = os.umask(0o027)
    try:
        with atomic_write(target):
            pass
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o604)
        with atomic_write(target):
            pass
        assert stat.S_IMODE(target.stat().st_mode) == 0o604
        with atomic_write(target, mode=0o600):
            pass
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    finally:
        os.umask(umask)


def test_a_link_is_replaced_and_not_followed(rec: Path) -> None:
    (rec / "else").write_bytes(b"else")
    (rec / "link").symlink_to("else")
    with atomic_write(rec / "link") as file:
        file.write(b"own")
    assert (rec / "else").read_bytes() == b"else"
    assert not (rec / "link").is_symlink()


def test_a_directory_that_is_moved_meanwhile_has_the_file(rec: Path) -> None:
    with atomic_write(rec / "a") as file:
        file.write(b"x")
        rec.rename(rec.with_name("143"))
    assert all_below(rec.with_name("143")) == ["a"]


@pytest.mark.parametrize(
    "name", ["n" * 255, "é" * 127 + "m", "n" * 200 + "." + "e" * 54, ".hidden", "a.", "x\n\udcff.mp4"]
)
def test_names_of_any_length_and_kind(rec: Path, name: str) -> None:
    with atomic_write(rec / name) as file:
        assert len(os.fsencode(Path(file.name).name)) <= 255
        file.write(b"x")
    assert all_below(rec) == [name]


def test_what_is_no_file_is_refused(rec: Path) -> None:
    with pytest.raises(IsADirectoryError), atomic_write("/"):
        pass
    with pytest.raises(FileNotFoundError), atomic_write(rec / "missing" / "a"):
        pass
    (rec / "folder").mkdir()
    with pytest.raises(IsADirectoryError), atomic_write(rec / "folder"):
        pass
    assert all_below(rec) == []
    writer = atomic_write(rec / "twice")
    with writer:
        pass
    with pytest.raises(RuntimeError, match="one block"), writer:
        pass
    assert all_below(rec) == ["twice"]


@pytest.mark.parametrize("loop", LOOPS)
def test_atomic_write_on_each_event_loop(rec: Path, loop: str) -> None:
    async def main() -> None:
        async with atomic_write(rec / "a.bin", verify=lambda path: path.stat().st_size == 6) as file:
            await file.write(b"abc")
            await file.write(b"def")
            await file.flush()
            await file.seek(0)
            assert await file.read() == b"abcdef"
            assert Path(file.name).read_bytes() == b"abcdef"
            assert not (rec / "a.bin").exists()
        assert (rec / "a.bin").read_bytes() == b"abcdef"
        with pytest.raises(RuntimeError, match="meant"):
            async with atomic_write(rec / "b.bin") as file:
                fail_after(Path(file.name))
        with pytest.raises(VerifyFailed):
            async with atomic_write(rec / "b.bin", verify=lambda _: False):
                pass

    run(loop, main)
    assert all_below(rec) == ["a.bin"]


@pytest.mark.parametrize("loop", LOOPS[1:])
@pytest.mark.parametrize("where", ["block", "write"])
def test_a_cancellation_leaves_nothing(rec: Path, loop: str, where: str) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with atomic_write(rec / "a.bin") as file:
                await file.write(b"half")
                scope.cancel()
                if where == "write":
                    await file.write(b"more")
                await anyio.sleep(60)
        assert scope.cancelled_caught

    run(loop, main)
    assert all_below(rec) == []


@pytest.mark.parametrize("step", ["write", "finish"])
def test_a_cancelled_task_of_asyncio_ends_the_step_it_is_at(rec: Path, step: str) -> None:
    """A thread cannot be stopped: what it does is waited for. Then all is taken away or, at the very end, there."""
    begun, go = threading.Event(), threading.Event()
    real = os.fsync

    def slow(*args: int) -> None:
        begun.set()
        assert go.wait(20)
        if step == "finish":
            real(*args)

    async def task() -> None:
        async with atomic_write(rec / "a.bin") as file:
            await file.write(b"x")
            if step == "write":
                await in_thread(slow)

    async def main() -> None:
        running = asyncio.create_task(task())
        await asyncio.to_thread(begun.wait, 20)
        running.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not running.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await running

    with mock.patch.object(os, "fsync", slow if step == "finish" else real):
        asyncio.run(main())
    assert all_below(rec) == (["a.bin"] if step == "finish" else [])


# --- next_version ------------------------------------------------------------------------------------------------


def test_versions_count_from_one_and_gaps_are_not_filled(rec: Path) -> None:
    def make(stem: str = "topics", extension: str = "json") -> str:
        with next_version(rec, stem, extension) as version:
            version.file.write(b"[]")
        return version.path.name

    assert [make(), make(".".join("ab")), make()] == ["topics_v1.json", "a.b_v1.json", "topics_v2.json"]
    (rec / "topics_v7.json").touch()
    for other in ("topics_v99.txt", "topics_v.json", "topics_v-9.json", "topics_v1e3.json", "topics_v\u0664.json"):
        (rec / other).touch()
    assert make() == "topics_v8.json"
    (rec / "topics_v009.json").touch()
    assert make() == "topics_v10.json"
    assert make(extension="") == "topics_v1"
    assert make(extension=".json") == "topics_v11.json"


def test_many_at_once_get_a_number_each_and_whole_files(rec: Path) -> None:
    made: list[tuple[int, bytes]] = []
    start = threading.Barrier(8)

    def work(worker: int) -> None:
        start.wait()
        for turn in range(10):
            told = b"%d-%d " % (worker, turn) * 1000
            with next_version(rec, "topics") as version:
                version.file.write(told)
            made.append((version.number, told))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in made) == list(range(1, 81))
    for number, told in made:
        assert (rec / f"topics_v{number}.json").read_bytes() == told
    assert len(all_below(rec)) == 80


def test_a_version_that_fails_takes_no_number(rec: Path) -> None:
    with pytest.raises(RuntimeError, match="meant"), next_version(rec, "topics") as version:
        fail_after(Path(version.file.name))
    with pytest.raises(VerifyFailed), next_version(rec, "topics", verify=lambda _: False):
        pass
    assert all_below(rec) == []
    with next_version(rec, "topics", verify=lambda path: path.read_bytes() == b"") as version:
        pass
    assert version.number == 1


@pytest.mark.parametrize(
    ("stem", "extension"),
    [
        ("", "json"),
        ("../a", "json"),
        ("a", "../x"),
        ("a\0", "json"),
        ("a\n", "json"),
        ("x" * 240, "json"),
        ("a", "j\u202e"),
    ],
)
def test_names_that_are_none_are_refused(rec: Path, stem: str, extension: str) -> None:
    with pytest.raises(InvalidName):
        next_version(rec, stem, extension)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
def test_without_renameat2_a_link_is_as_exclusive(rec: Path, code: int) -> None:
    (rec / "a").write_bytes(b"a")
    (rec / "b").write_bytes(b"b")
    folder = os.open(rec, os.O_RDONLY)
    with mock.patch.object(writing, "_renameat2", return_value=-1), mock.patch("ctypes.get_errno", return_value=code):
        with pytest.raises(FileExistsError):
            rename_new("a", "b", folder)
        rename_new("a", "c", folder)
    os.close(folder)
    assert {name: (rec / name).read_bytes() for name in all_below(rec)} == {"b": b"b", "c": b"a"}


@pytest.mark.parametrize("loop", LOOPS)
def test_versions_on_each_event_loop(rec: Path, loop: str) -> None:
    async def main() -> list[int]:
        numbers = []
        for text in (b"[1]", b"[2]"):
            async with next_version(rec, "topics") as version:
                await version.write(text)
            numbers.append(version.number)
        with pytest.raises(RuntimeError):
            async with next_version(rec, "topics") as version:
                raise RuntimeError
        return numbers

    assert run(loop, main) == [1, 2]
    assert (rec / "topics_v2.json").read_bytes() == b"[2]"
    assert len(all_below(rec)) == 2


# --- temp_job ----------------------------------------------------------------------------------------------------


@pytest.fixture
def default(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECFS_MOUNTPOINT", str(tree))
    monkeypatch.setattr(places, "store_root", lambda path: Path("/srv/recfs"))
    return tree


def test_a_job_is_there_for_its_block(default: Path) -> None:
    with temp_job(5) as job:
        assert job.parent == default / "temp" / "5"
        (job / "deep" / "er").mkdir(parents=True)
        (job / "deep" / "er" / "chunk.wav").write_bytes(b"x")
        with temp_job(5) as other:
            assert other != job
    assert (default / "temp" / "5").is_dir()
    assert os.listdir(default / "temp" / "5") == []


def test_no_job_is_made_where_there_is_no_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError), temp_job(5, root=tree / "away"):
        pass
    monkeypatch.setenv("RECFS_MOUNTPOINT", str(tree))
    with pytest.raises(NotAMount, match="there is no recfs mount"), temp_job(5):
        pass
    assert os.listdir(tree) == ["users"]


def test_a_job_goes_on_errors_too_unless_it_is_to_be_kept(tree: Path) -> None:
    with pytest.raises(RuntimeError, match="meant"), temp_job(5, root=tree) as job:
        fail_after(job / "a")
    assert not job.exists()
    with pytest.raises(RuntimeError, match="meant"), temp_job(5, root=tree, keep_on_error=True) as job:
        fail_after(job / "a")
    assert (job / "a").exists()


def test_the_id_of_a_job_can_be_said_and_is_not_shared(tree: Path) -> None:
    with temp_job(5, root=tree, job_id=77) as job:
        assert job == tree / "temp/5/77"
        with pytest.raises(FileExistsError), temp_job(5, root=tree, job_id=77):
            pass
        assert job.is_dir()
    for user, number in ((5, "../../users"), ("..", 1), (5, "x"), (True, 1)):
        with pytest.raises(InvalidName):
            temp_job(user, root=tree, job_id=number)


def test_a_job_that_went_meanwhile_and_links_in_it(tree: Path, rec: Path) -> None:
    (rec / "kept").touch()
    with temp_job(5, root=tree) as job:
        (job / "link").symlink_to(rec)
    assert all_below(rec) == ["kept"]
    with temp_job(5, root=tree) as job:
        job.rmdir()
    with temp_job(5, root=tree) as job:
        job.rename(rec / "moved")
    assert (rec / "moved").is_dir()


@pytest.mark.parametrize("loop", LOOPS)
def test_jobs_on_each_event_loop(tree: Path, loop: str) -> None:
    async def main() -> None:
        async with temp_job(5, root=tree) as job:
            (job / "a").touch()
        assert not job.exists()
        with pytest.raises(RuntimeError):
            async with temp_job(5, root=tree) as job:
                raise RuntimeError
        assert not job.exists()

    run(loop, main)


@pytest.mark.parametrize("loop", LOOPS[1:])
def test_a_cancelled_job_goes(tree: Path, loop: str) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with temp_job(5, root=tree) as job:
                (job / "a").touch()
                scope.cancel()
                await anyio.sleep(60)

    run(loop, main)
    assert os.listdir(tree / "temp/5") == []
