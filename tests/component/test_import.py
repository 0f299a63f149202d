"""Imports of trees and streams: what comes in is what was meant, and hostile streams reach nothing."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from recfs.core.life import Status
from recfs.core.migration.manifest import Life, Manifest, User
from recfs.core.migration.sums import sum_line
from recfs.errors import InvalidArgument
from recfs.migration.transfer import tars, walking
from recfs.migration.transfer.beneath import opened
from recfs.migration.transfer.exporting import export_stream, export_tree, make_destination
from recfs.migration.transfer.items import Item, Outcome, Problem, Why

from .transfers import Daemon, brought, imported, imported_stream, member, plain_source, recording, snapshot, stream_of

SAID = Manifest(
    "1.0.0", 5, {"4": User({"max_files": 900, "max_monthly_uploads": 1})},
    {
        "users/4/recordings/7": Life(Status.EXPIRED, 1, 2 * 10**18, note="old"),
        "users/4/recordings/8": Life(keep=True),
        "users/4/recordings/9": Life(),
    },
)  # fmt: skip
REC = "users/4/recordings/7"


def exported(tree: Path, to: Path, manifest: Manifest | None = SAID) -> None:
    with plain_source(tree, manifest=manifest) as source, opened(make_destination(to)) as top:
        export_tree(source, (b"users", b"4"), top, Outcome())


def streamed(tree: Path, manifest: Manifest | None = SAID) -> bytes:
    file, outcome = io.BytesIO(), Outcome()
    with plain_source(tree, manifest=manifest) as source:
        export_stream(source, file, outcome)
    assert outcome.clean
    return file.getvalue()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large goes through in many blocks, and need not be large for that."""
    monkeypatch.setattr(tars, "_SMALL_BYTES", 100_000)
    for module in (tars, walking):
        monkeypatch.setattr(module, "BLOCK_BYTES", 16 << 10)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = recording(tmp_path / "store")
    recording(tmp_path / "store", 4, 8)
    (folder / os.fsdecode(b"new\nline\\\xff")).write_bytes(b"odd")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("source.mp4")
    (folder / "large").write_bytes(os.urandom(200_000))
    os.setxattr(folder / "source.mp4", "user.title", b"\xff\n\0=")
    os.setxattr(folder, "user.title", b"of a directory")
    for number, path in enumerate(sorted(folder.rglob("*")), 1):
        os.utime(path, ns=(number * 10**9 + 1, number * 10**9 + 123456789), follow_symlinks=False)
    (folder / "source.mp4").chmod(0o640)
    return tmp_path / "store"


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_exported_comes_back_as_it_was(tree: Path, tmp_path: Path, stream: bool) -> None:
    daemon, mount = Daemon(), tmp_path / "mount"
    if stream:
        outcome = imported_stream(streamed(tree), mount, daemon)
    else:
        exported(tree, tmp_path / "out")
        outcome = imported(tmp_path / "out", mount, daemon)
    assert outcome.clean, outcome.problems
    assert snapshot(mount / "users") == snapshot(tree / "users")
    assert os.getxattr(mount / REC / "source.mp4", "user.title") == b"\xff\n\0="
    assert os.getxattr(mount / REC, "user.title") == b"of a directory"
    assert daemon.limits == {"4": {"max_files": 900, "max_monthly_uploads": 1}}
    assert daemon.lives == {
        "users/4/recordings/7": {"status": "expired", "expires_at_ns": 2 * 10**18, "keep": False, "note": "old"},
        "users/4/recordings/8": {"status": "active", "expires_at_ns": None, "keep": True, "note": ""},
    }
    assert daemon.asked.count("quota_set") == 2, "the limit of uploads is set when all are there"


@pytest.mark.parametrize("stream", [False, True])
def test_an_import_that_is_run_again_finds_all_as_it_should_be(tree: Path, tmp_path: Path, stream: bool) -> None:
    daemon, mount = Daemon(), tmp_path / "mount"
    exported(tree, tmp_path / "out")
    imported(tmp_path / "out", mount, daemon)
    before, asked = snapshot(mount), len([each for each in daemon.asked if not each.endswith("_show")])
    outcome = (
        imported_stream(streamed(tree), mount, daemon) if stream else imported(tmp_path / "out", mount, daemon)
    )  # fmt: skip
    assert outcome.clean
    assert outcome.files == 0
    assert outcome.equal == 7
    assert snapshot(mount) == before
    assert len([each for each in daemon.asked if not each.endswith("_show")]) == asked, "nothing is said twice"


def test_a_plain_tree_without_anything_beside_it_comes_in(tmp_path: Path) -> None:
    recording(tmp_path / "tree")
    (tmp_path / "tree/shared/templates").mkdir(parents=True)
    (tmp_path / "tree/shared/templates/a.png").write_bytes(b"png")
    daemon = Daemon()
    outcome = imported(tmp_path / "tree", tmp_path / "mount", daemon)
    assert outcome.clean
    assert outcome.files == 3
    assert daemon.asked == []
    assert snapshot(tmp_path / "mount/users") == snapshot(tmp_path / "tree/users")
    assert (tmp_path / "mount/shared/templates/a.png").read_bytes() == b"png"


def test_users_are_renamed_with_all_that_is_said_of_them(tree: Path, tmp_path: Path) -> None:
    daemon = Daemon()
    exported(tree, tmp_path / "out")
    outcome = imported(tmp_path / "out", tmp_path / "mount", daemon, user_map={"4": "17"})
    assert outcome.clean, outcome.problems
    assert os.listdir(tmp_path / "mount/users") == ["17"]
    assert list(daemon.limits) == ["17"]
    assert set(daemon.lives) == {f"users/17/recordings/{n}" for n in (7, 8)}
    stream = imported_stream(streamed(tree), tmp_path / "mount", daemon, user_map={"4": "17"})
    assert stream.clean
    assert stream.files == 0


def test_what_differs_is_left_unless_it_is_to_be_replaced(tree: Path, tmp_path: Path) -> None:
    mount, daemon = tmp_path / "mount", Daemon()
    exported(tree, tmp_path / "out")
    daemon.limits["4"] = {"max_files": 1}
    daemon.lives[REC] = {"status": "active", "expires_at_ns": 5, "keep": False, "note": ""}
    (mount / REC).mkdir(parents=True)
    for name in ("source.mp4", "link"):
        (mount / REC / name).write_bytes(b"another")
    os.mkdir(mount / REC / "large")
    outcome = imported(tmp_path / "out", mount, daemon)
    told = {each.path.decode(): each.why for each in outcome.problems}
    assert told == {
        f"{REC}/source.mp4": Why.DIFFERS, f"{REC}/link": Why.DIFFERS, f"{REC}/large": Why.DIFFERS,
        "users/4": Why.UNSAID, REC: Why.UNSAID,
    }  # fmt: skip
    assert (mount / REC / "source.mp4").read_bytes() == b"another"
    assert daemon.limits["4"]["max_files"] == 1
    again = imported(tmp_path / "out", mount, daemon, replace=True)
    assert {each.path.decode() for each in again.problems} == {f"{REC}/large"}, "a directory is never replaced"
    assert (mount / REC / "source.mp4").read_bytes() == (tree / REC / "source.mp4").read_bytes()
    assert (mount / REC / "link").is_symlink()
    assert again.replaced == 2
    assert daemon.limits["4"]["max_files"] == 900
    assert daemon.lives[REC]["expires_at_ns"] == 2 * 10**18


def test_a_recording_that_is_kept_here_does_not_expire_for_a_manifest(tree: Path, tmp_path: Path) -> None:
    daemon = Daemon()
    daemon.lives[REC] = {"status": "active", "expires_at_ns": None, "keep": True, "note": ""}
    outcome = imported_stream(streamed(tree), tmp_path / "mount", daemon)
    assert [(each.path.decode(), each.why) for each in outcome.problems] == [(REC, Why.UNSAID)]
    assert daemon.lives[REC]["keep"] is True
    assert daemon.lives[REC]["status"] == "active"
    assert imported_stream(streamed(tree), tmp_path / "mount", daemon, replace=True).clean
    assert (daemon.lives[REC]["keep"], daemon.lives[REC]["status"]) == (False, "expired")


def test_a_stream_replaces_what_differs_only_if_it_is_told_to(tree: Path, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    imported_stream(streamed(tree), mount)
    (mount / REC / "source.mp4").write_bytes(b"A recording" * 1000)  # as long, and not the same
    left = imported_stream(streamed(tree), mount)
    assert [each.why for each in left.problems] == [Why.DIFFERS]
    assert (mount / REC / "source.mp4").read_bytes().startswith(b"A rec")
    assert imported_stream(streamed(tree), mount, replace=True).clean
    assert (mount / REC / "source.mp4").read_bytes().startswith(b"a rec")


def test_files_alone_come_in_if_that_is_asked_for(tree: Path, tmp_path: Path) -> None:
    daemon = Daemon()
    assert imported_stream(streamed(tree), tmp_path / "mount", daemon, say=False).clean
    assert daemon.asked == []


def test_a_tree_is_held_to_its_sums(tree: Path, tmp_path: Path) -> None:
    out, mount = tmp_path / "out", tmp_path / "mount"
    exported(tree, out)
    (out / REC / "source.mp4").write_bytes(b"b recording" * 1000)
    (out / REC / "new").write_bytes(b"new")
    (out / REC / "large").unlink()
    outcome = imported(out, mount)
    assert {each.path.decode(): each.why for each in outcome.problems} == {
        f"{REC}/source.mp4": Why.DAMAGED, f"{REC}/new": Why.REFUSED, f"{REC}/large": Why.UNREADABLE,
    }  # fmt: skip
    assert not (mount / REC / "source.mp4").exists()
    assert not (mount / REC / "new").exists()


@pytest.mark.parametrize("beside", ["SHA256SUMS", "recfs-manifest.json"])
def test_what_lies_beside_a_tree_and_is_no_such_thing_is_refused(tmp_path: Path, beside: str) -> None:
    recording(tmp_path / "tree")
    (tmp_path / "tree" / beside).write_text("what is this?\n")
    with pytest.raises(InvalidArgument):
        imported(tmp_path / "tree", tmp_path / "mount")
    os.unlink(tmp_path / "tree" / beside)
    os.mkfifo(tmp_path / "tree" / beside)
    with pytest.raises(InvalidArgument):
        imported(tmp_path / "tree", tmp_path / "mount")


# --- streams from anybody -----------------------------------------------------------------------------------------


def members_of(stream: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        return [(each, file.read() if (file := tar.extractfile(each)) else b"") for each in tar if not each.issym()]


def sums_of(*files: tuple[str, bytes]) -> tuple[tarfile.TarInfo, bytes]:
    lines = [sum_line(hashlib.sha256(content).hexdigest(), name.encode()) for name, content in files]
    return member("SHA256SUMS", b"".join(lines))


def test_a_stream_that_was_changed_on_the_way_is_taken_away_again(tree: Path, tmp_path: Path) -> None:
    members = members_of(streamed(tree))
    changed = [(info, content.replace(b"a rec", b"b rec")) for info, content in members]
    mount = tmp_path / "mount"
    outcome = imported_stream(
        stream_of(
            *changed,
        ),
        mount,
    )
    assert {each.path.decode() for each in outcome.problems} == {
        f"users/4/recordings/{number}/source.mp4" for number in (7, 8)
    }
    assert not (mount / REC / "source.mp4").exists()
    assert (mount / REC / "large").exists()


def test_a_file_that_was_put_into_a_stream_is_taken_away_again(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    outcome = imported_stream(
        stream_of(member(f"{REC}/a", b"a"), member(f"{REC}/b", b"b"), sums_of((f"{REC}/a", b"a"), (f"{REC}/c", b"c"))),
        mount,
    )
    assert {each.path.decode(): each.why for each in outcome.problems} == {
        f"{REC}/b": Why.DAMAGED, f"{REC}/c": Why.UNREADABLE,
    }  # fmt: skip
    assert (outcome.files, outcome.copied_bytes) == (1, 1), "what is removed again did not come in"
    assert os.listdir(mount / REC) == ["a"]


def test_what_was_there_before_is_not_taken_away_for_a_stream_that_lies(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    (mount / REC).mkdir(parents=True)
    (mount / REC / "b").write_bytes(b"b")
    outcome = imported_stream(stream_of(member(f"{REC}/b", b"b"), sums_of((f"{REC}/b", b"x"))), mount)
    assert [each.why for each in outcome.problems] == [Why.DAMAGED]
    assert (mount / REC / "b").read_bytes() == b"b"


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_stream_that_breaks_off_is_told_and_what_was_whole_stays(tree: Path, tmp_path: Path, keep: float) -> None:
    whole, mount = streamed(tree), tmp_path / "mount"
    outcome = imported_stream(whole[: int(len(whole) * keep) - 10240], mount)
    assert outcome.stopped
    assert not outcome.clean
    for path in mount.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.read_bytes() == (tree / path.relative_to(mount)).read_bytes()
    assert imported_stream(whole, mount).clean


THREE = stream_of(*(member(f"{REC}/{name}", name.encode() * 1000) for name in "abc"))
"""Each file takes three blocks of 512 bytes: its header, and two of its bytes; the last 10 KiB are filled up."""


@pytest.mark.parametrize(
    ("cut", "whole"),
    [(1536, 1), (1536 + 1, 1), (1736, 1), (3 * 1536 - 1, 3), (3 * 1536, 3), (3 * 1536 + 511, 3), (3 * 1536 + 512, 3)],
)
def test_a_stream_without_the_end_of_an_archive_was_cut_off(tmp_path: Path, cut: int, whole: int) -> None:
    outcome = imported_stream(THREE[:cut], tmp_path / "mount")
    assert "cannot be read on" in outcome.stopped
    assert not outcome.clean
    assert sorted(os.listdir(tmp_path / "mount" / REC)) == ["a", "b", "c"][:whole]


def test_a_stream_with_its_two_blocks_of_zeros_is_whole(tmp_path: Path) -> None:
    assert THREE[3 * 1536 :].count(0) == len(THREE) - 3 * 1536
    assert imported_stream(THREE[: 3 * 1536 + 1024], tmp_path / "mount").clean
    assert imported_stream(THREE + bytes(1 << 20), tmp_path / "mount").clean


@pytest.mark.parametrize("at", [0, 10, 148, 257, 511])
def test_a_header_that_was_damaged_on_the_way_ends_the_stream(tmp_path: Path, at: int) -> None:
    damaged = bytearray(THREE)
    damaged[1536 + at] ^= 0x55
    outcome = imported_stream(bytes(damaged), tmp_path / "mount")
    assert "header is damaged" in outcome.stopped
    assert os.listdir(tmp_path / "mount" / REC) == ["a"]


def test_zeros_in_place_of_a_header_are_no_end(tmp_path: Path) -> None:
    zeros = THREE[:1536] + bytes(512) + THREE[1536 + 512 :]
    assert imported_stream(zeros, tmp_path / "mount").stopped


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_stream_whose_archive_was_cut_off_is_told(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    assert imported_stream(compress(THREE[:1536]), tmp_path / "mount").stopped
    assert imported_stream(compress(THREE), tmp_path / "mount").clean
    assert imported_stream(compress(THREE)[: len(compress(THREE)) // 2], tmp_path / "mount").stopped


def test_what_follows_an_archive_is_told(tmp_path: Path) -> None:
    other = stream_of(member(f"{REC}/d", b"d"))
    outcome = imported_stream(THREE + other, tmp_path / "mount")
    assert "follows the end" in outcome.stopped
    assert outcome.files == 3
    assert "nothing in it" in imported_stream(bytes(10240), tmp_path / "mount").stopped


def test_a_stream_is_read_to_its_end_for_whoever_writes_it(tmp_path: Path) -> None:
    file = io.BytesIO(THREE + bytes(1 << 20))
    assert brought(tars.TarSource(file, {}), tmp_path / "mount").clean
    assert file.read() == b""


def test_a_chain_of_extra_headers_is_refused(tmp_path: Path) -> None:
    extra = tarfile.TarInfo("x")
    extra.type, content = tarfile.XHDTYPE, b"12 a=bbbbbb\n"
    extra.size = len(content)
    one = extra.tobuf(tarfile.USTAR_FORMAT) + content + bytes(512 - len(content))
    for number in (100, 3000):
        outcome = imported_stream(THREE[:1536] + one * number + THREE[1536:], tmp_path / "mount")
        assert "extra headers" in outcome.stopped
        assert os.listdir(tmp_path / "mount" / REC) == ["a"]


def test_a_stack_that_is_too_small_for_a_stream_ends_the_stream_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deep(member: tarfile.TarInfo, path: str) -> None:
        raise RecursionError

    monkeypatch.setattr(tars, "_look_again", deep)
    assert "RecursionError" in imported_stream(THREE, tmp_path / "mount").stopped


def test_what_is_no_stream_is_told(tmp_path: Path) -> None:
    for nothing in (b"", b"x" * 5000, os.urandom(20000), bytes([0x1F, 0x8B]) + b"x" * 600):
        assert imported_stream(nothing, tmp_path / "mount").stopped
    assert os.listdir(tmp_path / "mount/users") == []


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_streams_come_in(tmp_path: Path, kind: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]
        info, content = member(f"{REC}/a", b"a")
        tar.addfile(info, io.BytesIO(content))
    assert imported_stream(file.getvalue(), tmp_path / "mount").files == 1


HOSTILE = [
    member("/users/4/recordings/7/x", b"x"),
    member("//users/4/recordings/7/x", b"x"),
    member("../x", b"x"),
    member("users/4/recordings/7/../../../../../x", b"x"),
    member("users/../../x", b"x"),
    member("etc/passwd", b"x"),
    member("users/root/recordings/7/x", b"x"),
    member("users/4/recordings/0x7/x", b"x"),
    member("users/4/.bashrc", b"x"),
    member("temp/4/1/x", b"x"),
    member(".recfs/catalogue.db", b"x"),
    member(f"{REC}/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    member(f"{REC}/hard2", type=tarfile.LNKTYPE, linkname="users/4/recordings/7/ok"),
    member(f"{REC}/abs", type=tarfile.SYMTYPE, linkname="/etc"),
    member(f"{REC}/up", type=tarfile.SYMTYPE, linkname="../../../../etc"),
    member(f"{REC}/other", type=tarfile.SYMTYPE, linkname="../../../5/recordings/1/source.mp4"),
    member(f"{REC}/null", type=tarfile.SYMTYPE, linkname=""),
    member(f"{REC}/char", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    member(f"{REC}/block", type=tarfile.BLKTYPE, devmajor=8),
    member(f"{REC}/fifo", type=tarfile.FIFOTYPE),
    *(
        member(name, type=kind, linkname="/etc")
        for name in ("", ".", "./", "././", "users", "users/4", "users/", "users/.", ".//")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)
    ),
    member("", b"x"),
    member(".", b"x"),
    member("users/4", b"x"),
    member(f"{REC}/" + "n" * 256, b"x"),
    member("shared/" + "n" * 300, type=tarfile.DIRTYPE),
]


@pytest.mark.parametrize("again", [True, False], ids=["judged by Python, too", "Debian 12"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda each: each[0].name[:40])
def test_members_that_have_no_business_here_are_refused(
    tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes], again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not again:
        monkeypatch.setattr(tars, "_look_again", None)
    mount = tmp_path / "deep" / "mount"
    stream = stream_of(member(f"{REC}/ok", b"ok"), hostile, member(f"{REC}/ok2", b"ok"))
    outcome = imported_stream(stream, mount)
    assert [each.why for each in outcome.problems] == [Why.REFUSED]
    assert sorted(os.listdir(mount / REC)) == ["ok", "ok2"]
    assert sorted(os.listdir(tmp_path / "deep")) == ["mount"]
    assert sorted(os.listdir(mount)) == ["shared", "users"]


def test_a_link_of_the_stream_is_no_way_for_what_comes_after(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    stream = stream_of(
        member("users/4/recordings/8", type=tarfile.DIRTYPE, mode=0o755),
        member(f"{REC}/way", type=tarfile.SYMTYPE, linkname="../8"),
        member(f"{REC}/way/x", b"x"),
        member(f"{REC}/way", type=tarfile.DIRTYPE),
    )
    outcome = imported_stream(stream, mount)
    assert len(outcome.problems) == 2
    assert os.listdir(mount / "users/4/recordings/8") == []


def test_a_name_that_comes_twice_comes_in_once(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    stream = stream_of(member(f"{REC}/a", b"first"), member(f"./{REC}/a", b"second"))
    for replace in (False, True):
        outcome = imported_stream(stream, mount, replace=replace)
        assert [each.why for each in outcome.problems] == [Why.REFUSED]
        assert (mount / REC / "a").read_bytes() == b"first"


def test_a_size_that_lies_ends_the_stream_and_leaves_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    info, content = member(f"{REC}/a", b"content")
    info.size = 1 << 40
    stream = info.tobuf(tarfile.GNU_FORMAT) + content
    outcome = imported_stream(stream, mount)
    assert not outcome.clean
    assert os.listdir(mount / REC) == []


def test_sparse_bombs_and_huge_headers_are_not_unpacked(tmp_path: Path) -> None:
    sparse = tarfile.TarInfo(f"{REC}/bomb")
    sparse.type = tarfile.REGTYPE
    sparse.size = 512
    sparse.pax_headers = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": f"{REC}/bomb",
        "GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,512", "GNU.sparse.numblocks": "1",
    }  # fmt: skip
    outcome = imported_stream(stream_of((sparse, bytes(512))), tmp_path / "mount")
    assert [each.why for each in outcome.problems] == [Why.REFUSED]
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    assert "header" in imported_stream(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096), tmp_path / "mount").stopped


@pytest.mark.parametrize("mtime", ["nan", "inf", "-1", "1e400", "99999999999999999999", "x"])
def test_times_that_nobody_can_mean_are_none(tmp_path: Path, mtime: str) -> None:
    info, content = member(f"{REC}/a", b"a")
    info.pax_headers = {"mtime": mtime}
    outcome = imported_stream(stream_of((info, content)), tmp_path / "mount")
    if outcome.clean:
        assert (tmp_path / "mount" / REC / "a").stat().st_mtime_ns == 0
    else:
        assert outcome.stopped


def test_a_stream_sets_no_limits_by_attributes_and_no_bits_that_give_rights(tmp_path: Path) -> None:
    info, content = member(f"{REC}/a", b"a", mode=0o6777, uid=0)
    info.pax_headers = {
        "SCHILY.xattr.user.recfs.quota.max_bytes": "unlimited", "SCHILY.xattr.trusted.x": "1",
        "SCHILY.xattr.security.capability": "1", "SCHILY.xattr.user.fine": "yes",
    }  # fmt: skip
    assert imported_stream(stream_of((info, content)), tmp_path / "mount").clean
    path = tmp_path / "mount" / REC / "a"
    assert [name for name in os.listxattr(path) if name.startswith(("user.", "trusted."))] == ["user.fine"]
    assert path.stat().st_mode & 0o7000 == 0


def test_manifest_and_sums_of_a_stream_are_bounded_and_looked_at(tmp_path: Path) -> None:
    for name, content in (("recfs-manifest.json", b"{"), ("SHA256SUMS", b"nothing\n")):
        outcome = imported_stream(stream_of(member(name, content), member(f"{REC}/a", b"a")), tmp_path / "mount")
        assert outcome.stopped
    assert not (tmp_path / "mount" / REC).exists()


def test_a_large_file_that_breaks_on_its_way_out_does_not_come_in(tree: Path, tmp_path: Path) -> None:
    file, outcome = io.BytesIO(), Outcome()
    with plain_source(tree, manifest=SAID) as source:
        given = source.items

        def broken(chunks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
            for number, block in enumerate(chunks()):
                if number == 5:
                    raise OSError(5, "Input/output error")
                yield block

        def items() -> Iterator[Item | Problem]:
            for each in given():
                if isinstance(each, Item) and each.parts[-1] == b"large":
                    each.chunks = partial(broken, each.chunks)
                yield each

        source.items = items  # type: ignore[method-assign]
        export_stream(source, file, outcome)
    assert [(each.path.decode(), each.why) for each in outcome.problems] == [(f"{REC}/large", Why.UNREADABLE)]
    there = imported_stream(file.getvalue(), tmp_path / "mount")
    assert [each.path.decode() for each in there.problems] == [f"{REC}/large"]
    assert not (tmp_path / "mount" / REC / "large").exists()
    assert (tmp_path / "mount" / REC / "source.mp4").exists()
