"""Exports into plain directories: whole or not at all, run again, proven, and never out of the tree."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.core.migration.manifest import Life, Manifest, User
from recfs.errors import Busy
from recfs.migration.transfer import blocks, exporting, placing, walking
from recfs.migration.transfer.beneath import opened
from recfs.migration.transfer.beside import read_manifest, read_sums
from recfs.migration.transfer.exporting import export_tree, is_below, make_destination
from recfs.migration.transfer.items import Item, Kind, Outcome, Problem, Unusable, Why
from recfs.migration.transfer.placing import PlainPlace
from recfs.migration.transfer.trees import open_tree
from recfs.migration.transfer.walking import Walk

from .transfers import PlainSource, plain_source, recording, snapshot

SAID = Manifest("1.0.0", 5, {"4": User({"max_files": 9})}, {"users/4/recordings/7": Life(keep=True)})


def exported(
    tree: Path, to: Path, path: str = "users/4", manifest: Manifest | None = SAID, *, delete: bool = False
) -> Outcome:
    outcome = Outcome()
    with plain_source(tree, path, manifest) as source, opened(make_destination(to)) as top:
        export_tree(source, tuple(os.fsencode(path).split(b"/")), top, outcome, delete=delete)
    return outcome


def checked(to: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=to, check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with names of all kinds, links, times and modes."""
    folder = recording(tmp_path / "store")
    odd = folder / os.fsdecode(b"new\nline\\\xff\r")
    odd.write_bytes(b"odd")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("source.mp4")
    (folder / "out").symlink_to("/etc/passwd")
    (folder / ("x" * 255)).write_bytes(b"long")
    for number, path in enumerate(sorted(folder.rglob("*")), 1):
        if not path.is_symlink():
            path.chmod(0o700 + (number & 0o55) if path.is_dir() else 0o640)
        os.utime(path, ns=(number * 10**9 + 1, number * 10**9 + 123456789), follow_symlinks=False)
    return tmp_path / "store"


def test_everything_goes_out_and_sha256sum_proves_it(tree: Path, tmp_path: Path) -> None:
    outcome = exported(tree, tmp_path / "out")
    assert outcome.clean
    assert (outcome.files, outcome.links) == (4, 2)
    assert snapshot(tmp_path / "out" / "users") == snapshot(tree / "users")
    checked(tmp_path / "out")
    with opened(open_tree(tmp_path / "out")) as top:
        assert read_manifest(top) == SAID
        assert len(read_sums(top) or {}) == 4


def test_an_export_that_is_run_again_copies_what_is_missing_or_wrong(tree: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    exported(tree, to)
    folder = to / "users/4/recordings/7"
    (folder / "source.mp4").write_bytes(b"another recording"[:11] * 1000)
    (folder / "transcription" / "master.json").unlink()
    before = (folder / ("x" * 255)).stat().st_ino
    outcome = exported(tree, to)
    assert (outcome.files, outcome.replaced, outcome.equal) == (2, 1, 4)
    assert (folder / ("x" * 255)).stat().st_ino == before
    assert snapshot(to / "users") == snapshot(tree / "users")
    checked(to)


def test_several_exports_share_what_lies_beside_them(tmp_path: Path) -> None:
    recording(tmp_path / "store", 4, 7)
    recording(tmp_path / "store", 4, 8)
    recording(tmp_path / "store", 5, 7)
    to = tmp_path / "out"
    lives = {f"users/{user}/recordings/{number}": Life(note="x") for user, number in ((4, 7), (4, 8), (5, 7))}
    for path, life in lives.items():
        exported(tmp_path / "store", to, path, Manifest("1", 1, {}, {path: life}))
    with opened(open_tree(to)) as top:
        assert len(read_sums(top) or {}) == 6
        assert (read_manifest(top) or Manifest()).recordings == lives
    (tmp_path / "store/users/4/recordings/8/source.mp4").unlink()
    outcome = exported(tmp_path / "store", to, "users/4/recordings/8", Manifest("1", 1), delete=True)
    assert (outcome.deleted, outcome.left) == (1, [])
    with opened(open_tree(to)) as top:
        assert len(read_sums(top) or {}) == 5
        assert set((read_manifest(top) or Manifest()).recordings) == set(lives) - {"users/4/recordings/8"}


def said_of(to: Path) -> tuple[set[str], set[str]]:
    """The files of SHA256SUMS, and the recordings of the manifest."""
    with opened(open_tree(to)) as top:
        sums, said = read_sums(top) or {}, read_manifest(top) or Manifest()
    return {os.fsdecode(path) for path in sums}, set(said.recordings)


def test_what_the_store_has_no_more_is_named_and_removed_only_if_that_is_asked_for(tmp_path: Path) -> None:
    recording(tmp_path / "store", 4, 7)
    gone = recording(tmp_path / "store", 4, 8)
    to, life = tmp_path / "out", {f"users/4/recordings/{number}": Life(note="x") for number in (7, 8)}
    exported(tmp_path / "store", to, manifest=Manifest("1", 1, {}, life))
    before = said_of(to)
    copy = to / "users/4/recordings/8"
    subprocess.run(["rm", "-r", gone], check=True)
    now = Manifest("1", 2, {}, {"users/4/recordings/7": Life(note="x")})
    outcome = exported(tmp_path / "store", to, manifest=now)
    assert outcome.clean, "nothing is wrong with what is in the store"
    assert sorted(outcome.left) == [
        b"users/4/recordings/8/source.mp4", b"users/4/recordings/8/transcription/master.json",
    ]  # fmt: skip
    assert said_of(to) == before, "an import of it brings what lies there, as it was exported"
    checked(to)

    (copy / "mine").write_text("of whoever has the copy")
    (copy / "source.mp4").write_bytes(b"changed since")
    outcome = exported(tmp_path / "store", to, manifest=now, delete=True)
    assert (outcome.deleted, outcome.left) == (1, [b"users/4/recordings/8/source.mp4"])
    assert sorted(os.listdir(copy)) == ["mine", "source.mp4"], "what was not exported like that is not removed"

    for name in ("mine", "source.mp4"):
        (copy / name).unlink()
    assert exported(tmp_path / "store", to, manifest=now, delete=True).left == []
    assert said_of(to) == (
        {f"users/4/recordings/7/{name}" for name in ("source.mp4", "transcription/master.json")},
        {"users/4/recordings/7"},
    )
    checked(to)


def test_directories_that_are_gone_with_their_files_are_removed_with_them(tmp_path: Path) -> None:
    recording(tmp_path / "store", 4, 7)
    gone = recording(tmp_path / "store", 4, 8)
    exported(tmp_path / "store", tmp_path / "out")
    subprocess.run(["rm", "-r", gone, gone.with_name("7") / "transcription"], check=True)
    assert exported(tmp_path / "store", tmp_path / "out", delete=True).deleted == 3
    assert snapshot(tmp_path / "out/users").keys() == snapshot(tmp_path / "store/users").keys()


def test_what_cannot_be_read_now_is_not_gone(tmp_path: Path) -> None:
    folder, to = recording(tmp_path / "store"), tmp_path / "out"
    exported(tmp_path / "store", to)
    before = said_of(to)
    outcome = Outcome()
    rec = (b"users", b"4", b"recordings", b"7")
    source = _Given(
        *(Item(rec[:depth], Kind.DIRECTORY, 0o755) for depth in (2, 3, 4)),
        Problem(b"/".join((*rec, b"source.mp4")), Why.DAMAGED, "it is corrupt"),
        Problem(b"/".join((*rec, b"transcription")), Why.UNREADABLE, "Input/output error"),
    )
    with opened(make_destination(to)) as top:
        export_tree(source, rec[:2], top, outcome, delete=True)
    assert (outcome.deleted, outcome.left) == (0, [])
    assert said_of(to)[0] == before[0]
    assert snapshot(to / "users").keys() == snapshot(tmp_path / "store/users").keys()
    assert (to / folder.relative_to(tmp_path / "store") / "source.mp4").read_bytes() == b"a recording" * 1000
    checked(to)


def test_two_exports_do_not_write_to_one_place_at_once(tree: Path, tmp_path: Path) -> None:
    import fcntl

    with opened(make_destination(tmp_path / "out")) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Busy):
            exported(tree, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


class _Given:
    """A source of given entries."""

    manifest: Manifest | None = None
    has_sums = False

    def __init__(self, *entries: Item | Problem) -> None:
        self._entries = entries

    def items(self) -> Iterator[Item | Problem]:
        yield from self._entries

    def sum_of(self, path: bytes) -> str | None:
        return None


def _file(name: bytes, content: bytes = b"right", **fields: object) -> Item:
    item = Item((b"users", b"4", b"recordings", b"7", name), Kind.FILE, size=len(content))
    item.sha256 = hashlib.sha256(content).hexdigest()
    item.chunks = lambda: iter([content])
    for field, value in fields.items():
        setattr(item, field, value)
    return item


def _broken() -> Iterator[bytes]:
    yield b"ri"
    raise OSError(errno.EIO, "Input/output error")


def _corrupt() -> Iterator[bytes]:
    yield b""
    raise Unusable(Why.DAMAGED, "it is corrupt")


def test_what_is_not_as_it_should_be_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    outcome = Outcome()
    source = _Given(
        _file(b"right"),
        _file(b"wrong", sha256="0" * 64),
        _file(b"short", size=6),
        _file(b"longer", size=4),
        _file(b"broken", chunks=_broken),
        _file(b"corrupt", chunks=_corrupt),
        _file(b"no\0name"[:2], chunks=lambda: iter(()), size=0, sha256=hashlib.sha256().hexdigest()),
        Problem(b"users/4/recordings/7/written", Why.WRITING, "it is being written"),
    )
    with opened(make_destination(tmp_path / "out")) as top:
        export_tree(source, (b"users", b"4"), top, outcome)
    assert [(each.path.rsplit(b"/", 1)[1], each.why) for each in outcome.problems] == [
        (b"wrong", Why.DAMAGED),
        (b"short", Why.WRITING),
        (b"longer", Why.WRITING),
        (b"broken", Why.UNREADABLE),
        (b"corrupt", Why.DAMAGED),
        (b"written", Why.WRITING),
    ]
    assert not outcome.clean
    assert outcome.files == 2
    assert sorted(os.listdir(tmp_path / "out/users/4/recordings/7")) == ["no", "right"]
    checked(tmp_path / "out")


def test_a_full_disk_ends_it_with_what_is_done_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [_file(b"%03d" % number) for number in range(100)]
    written = 0

    def full(file: int, block: bytes) -> int:
        nonlocal written
        written += 1
        if written > 70:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(file, block)

    with monkeypatch.context() as patched, opened(make_destination(tmp_path / "out")) as top:
        patched.setattr(blocks, "_write", full)
        outcome = Outcome()
        export_tree(_Given(*entries), (b"users", b"4"), top, outcome)
    assert outcome.stopped.endswith("No space left on device")
    assert not outcome.problems
    left = os.listdir(tmp_path / "out/users/4/recordings/7")
    assert len(left) == outcome.files == 70, "what was shown stays, what was not is taken away"
    checked(tmp_path / "out")
    with opened(make_destination(tmp_path / "out")) as top:
        again = Outcome()
        export_tree(_Given(*entries), (b"users", b"4"), top, again)
    assert again.clean
    assert (again.files, again.equal) == (30, 70)


def test_an_export_that_is_ended_anywhere_is_finished_by_the_next(tree: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    for steps in range(1, 40):
        outcome = Outcome()
        with plain_source(tree, manifest=SAID) as source, opened(make_destination(to)) as top:

            def end(_: Outcome, source: object = source, steps: int = steps) -> None:
                if source.given >= steps:  # type: ignore[attr-defined]
                    raise KeyboardInterrupt

            try:
                export_tree(source, (b"users", b"4"), top, outcome, tell=end)
            except KeyboardInterrupt:
                assert not [name for _, _, names in os.walk(to) for name in names if name.endswith(".recfs-part")]
                continue
        break
    else:
        pytest.fail("it did not come to an end")
    assert outcome.clean
    assert steps > 5
    assert snapshot(to / "users") == snapshot(tree / "users")


def test_what_a_killed_export_was_writing_is_written_anew(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out/users/4/recordings/7"
    folder.mkdir(parents=True)
    (folder / ".source.mp4.recfs-part").symlink_to("/etc/passwd")
    passwd = Path("/etc/passwd").read_bytes()
    assert exported(tree, tmp_path / "out").clean
    assert Path("/etc/passwd").read_bytes() == passwd
    assert snapshot(tmp_path / "out/users") == snapshot(tree / "users")


def test_a_name_that_is_swapped_at_the_destination_is_not_opened(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "out"
    exported(tree, to)
    file = to / "users/4/recordings/7/source.mp4"
    aside = tmp_path / "aside"
    aside.write_bytes(b"of somebody else")
    aside.chmod(0o600)
    os.utime(aside, ns=(5, 5))

    class Swapped(PlainPlace):
        """A place where somebody swaps a name as soon as its file was hashed."""

        other: str

        def sha256_of(self, descriptor: int) -> str:
            found = super().sha256_of(descriptor)
            if os.readlink(f"/proc/self/fd/{descriptor}") == str(file):
                file.rename(to / "moved")
                os.mkfifo(file) if self.other == "fifo" else aside.rename(file)
            return found

    for other in ("fifo", "file"):
        Swapped.other = other
        monkeypatch.setattr(exporting, "PlainPlace", Swapped)
        exported(tree, to)
        assert file.is_fifo() if other == "fifo" else file.stat().st_mode & 0o777 == 0o600
        assert file.is_fifo() or file.stat().st_mtime_ns == 5
        monkeypatch.undo()
        file.unlink()
        exported(tree, to)
        (to / "moved").unlink()


def test_a_pipe_that_takes_the_place_of_a_file_is_named(tree: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    exported(tree, to)
    file = to / "users/4/recordings/7/source.mp4"
    file.unlink()
    os.mkfifo(file)
    outcome = exported(tree, to)
    assert [(each.path.rsplit(b"/", 1)[1], each.why) for each in outcome.problems] == [(b"source.mp4", Why.DIFFERS)]


def test_directories_at_the_destination_are_for_their_owner_to_change(tmp_path: Path) -> None:
    recording(tmp_path / "store")
    folder, to = tmp_path / "store/users/4/recordings/7", tmp_path / "out"
    there = to / "users/4/recordings/7"
    for path in (folder, folder / "transcription", folder.parent):
        path.chmod(0o777)
    (folder / "source.mp4").chmod(0o666)
    modes: list[int] = []
    for _ in range(2):
        with plain_source(tmp_path / "store", manifest=SAID) as source, opened(make_destination(to)) as top:

            def look(_: Outcome, source: PlainSource = source, modes: list[int] = modes) -> None:
                if source.given >= len(("users/4", "recordings", "7", "source.mp4")):
                    modes.extend(path.stat().st_mode for path in (there, there.parent))

            export_tree(source, (b"users", b"4"), top, Outcome(), tell=look)
        modes += [path.stat().st_mode for path in to.rglob("*") if path.is_dir()]
        for path in (there, there.parent):
            path.chmod(0o777)  # as an export of an earlier version left it
    assert len(modes) > 10
    assert not [mode for mode in modes if mode & 0o022]
    assert (there / "source.mp4").stat().st_mode & 0o777 == 0o666


def test_links_at_the_destination_lead_nowhere(tree: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    folder = tmp_path / "out/users/4/recordings"
    folder.mkdir(parents=True)
    (folder / "7").symlink_to(aside)
    outcome = exported(tree, tmp_path / "out")
    assert {each.why for each in outcome.problems} <= {Why.REFUSED, Why.DIFFERS}
    assert outcome.files == 0
    assert os.listdir(aside) == []


def test_a_directory_that_is_swapped_for_a_link_is_read_as_it_was(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    folder = recording(tmp_path / "store") / "swapped"
    folder.mkdir()
    (folder / "key").write_text("harmless")
    read = []
    with opened(open_tree(tmp_path / "store")) as top:
        for each in Walk(top, lambda item, _: item).below((b"users", b"4")):
            assert isinstance(each, Item)
            if each.parts[-1] == b"swapped":
                folder.rename(tmp_path / "moved")
                folder.symlink_to(secret)
            elif each.parts[-1] == b"key":
                read.append(b"".join(each.chunks()))
    assert read == [b"harmless"]


def test_a_file_that_is_swapped_for_a_link_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    file = recording(tmp_path / "store") / "source.mp4"
    right = file.read_bytes()
    read = []
    with opened(open_tree(tmp_path / "store")) as top:
        for each in Walk(top, lambda item, _: item).below((b"users", b"4")):
            if isinstance(each, Item) and each.parts[-1] == b"source.mp4":
                file.unlink()
                file.symlink_to(tmp_path / "secret")
                read.append(b"".join(each.chunks()))
    assert read == [right]


def test_a_file_that_grows_while_it_is_read_is_named(tmp_path: Path) -> None:
    file = recording(tmp_path / "store") / "source.mp4"
    with opened(open_tree(tmp_path / "store")) as top:
        for each in Walk(top, lambda item, _: item).below((b"users", b"4")):
            if isinstance(each, Item) and each.parts[-1] == b"source.mp4":
                chunks = each.chunks()
                next(chunks)
                with file.open("ab") as writer:
                    writer.write(b"more")
                with pytest.raises(Unusable):
                    list(chunks)


def test_a_file_that_grows_as_fast_as_it_is_read_comes_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = recording(tmp_path / "store") / "source.mp4"
    reads = 0

    def growing(descriptor: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        assert reads < 100, "it is read for ever"
        block = read(descriptor, size)
        with file.open("ab") as writer:
            writer.write(b"more" * 100)
        return block

    read = os.read
    for module in (walking, placing):
        monkeypatch.setattr(module, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(os, "read", growing)
    with opened(open_tree(tmp_path / "store")) as top:
        for each in Walk(top, lambda item, _: item).below((b"users", b"4")):
            if isinstance(each, Item) and each.parts[-1] == b"source.mp4":
                for attempt in (lambda item: list(item.chunks()), blocks.sum_of):
                    with pytest.raises(Unusable) as caught:
                        attempt(each)
                    assert caught.value.why is Why.WRITING
    with opened(os.open(file, os.O_PATH)) as there, pytest.raises(Unusable):
        PlainPlace().sha256_of(there)


def test_a_tree_that_is_deeper_than_a_process_may_have_files_is_walked(tmp_path: Path) -> None:
    recording(tmp_path / "store")
    where = os.open(tmp_path / "store/users/4/recordings/7", os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=where)
        below = os.open("d", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = below
    os.close(os.open("deep", os.O_CREAT | os.O_WRONLY, dir_fd=where))
    os.close(where)
    try:
        with opened(open_tree(tmp_path / "store")) as top:
            found = list(Walk(top, lambda item, _: item).below((b"users", b"4")))
    finally:
        subprocess.run(["rm", "-r", tmp_path / "store"], check=True)  # Python has too little stack for that
    assert not [each for each in found if isinstance(each, Problem)]
    assert max(len(each.parts) for each in found if isinstance(each, Item)) == 4 + 1100 + 1


def test_a_destination_is_known_to_lie_in_the_store_whatever_leads_there(tmp_path: Path) -> None:
    (tmp_path / "store/users/4").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "store/users")
    info = (tmp_path / "store").stat()
    own = {(info.st_dev, info.st_ino)}
    for path, inside in (("store", True), ("store/users/4", True), ("link/4", True), ("", False)):
        with opened(open_tree(tmp_path / path)) as folder:
            assert is_below(folder, own) is inside


def test_bits_that_give_rights_are_not_carried_out(tmp_path: Path) -> None:
    folder = recording(tmp_path / "store")
    (folder / "source.mp4").chmod(0o6755)
    exported(tmp_path / "store", tmp_path / "out")
    assert (tmp_path / "out/users/4/recordings/7/source.mp4").stat().st_mode & 0o7777 == 0o755
