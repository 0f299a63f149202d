"""Sums over many files, as the catalogue makes them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from hypothesis import example, given
from hypothesis import strategies as st

from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.reports import SqliteReports
from recfs.core.figures.categories import BY_EXTENSION, HEADS, Marks, marks_of
from recfs.core.model import Kind, State
from recfs.ports.batch import Batch
from recfs.ports.figures import Folder, Tally, Twins
from recfs.ports.rows import NodeRow, ObjectRow

from .catalogue_contract import held, row

DIRS = [
    row(1, b"", kind=Kind.DIR),
    row(2, b"users", kind=Kind.DIR),
    row(3, b"5", 2, kind=Kind.DIR),
    row(4, b"6", 2, kind=Kind.DIR),
]
NONE = Marks(0, b"")


async def filled(folder: Path, nodes: list[NodeRow], objects: list[ObjectRow] | None = None) -> SqliteReports:
    catalogue = open_catalogue(folder / "catalogue.db")
    await catalogue.apply(Batch(nodes=[*DIRS, *nodes], objects=objects or []))
    catalogue.close()
    return SqliteReports(folder / "catalogue.db")


NAMES = st.builds(
    lambda *parts: b"".join(parts).replace(b"/", b"").replace(b"\0", b"") or b"x",
    st.sampled_from([*HEADS, b"", b".", b"a.", b"Transcript", b"SOURCE.", b"\xff", b"\xc3."]),
    st.binary(max_size=4) | st.sampled_from([b".", b"..", b"%", b"_", b"*", b"?", b"[", "ä.é".encode()]),
    st.sampled_from([b"", b".", b".MP4", *(b"." + each for each in BY_EXTENSION), *BY_EXTENSION]),
)


@example([b"source.\xc0.\x803gp", b".\x80mp4", b"a.\xffMP4", b"b.\xc3mp4"])
@given(st.lists(NAMES, min_size=1, max_size=40, unique=True))
def test_names_say_in_sql_what_they_say_in_the_core(names: list[bytes]) -> None:
    nodes = [row(100 + number, name, 3) for number, name in enumerate(names)]
    expected: dict[Marks, int] = {}
    for name in names:
        expected[marks_of(name)] = expected.get(marks_of(name), 0) + 1
    with TemporaryDirectory() as folder:
        reports = trio.run(filled, Path(folder), nodes)
        with reports.reading() as snapshot:
            assert {each.marks: each.files for each in snapshot.tallies(None, 0)} == expected


async def test_files_are_grouped_by_directory_place_class_and_time(tmp_path: Path) -> None:
    huge = 2**62
    nodes = [
        row(10, b"a", 3, size_bytes=huge, mtime_ns=5),
        row(11, b"b", 3, size_bytes=huge, mtime_ns=7),
        row(12, b"c", 3, size_bytes=huge, mtime_ns=6),
        row(13, b"late", 3, size_bytes=1, mtime_ns=100),
        row(14, b"both", 3, state=State.STORED, has_object=1, mtime_ns=1),
        row(15, b"far", 4, state=State.EVICTED, has_object=1, mtime_ns=2),
        row(16, b"link", 3, kind=Kind.SYMLINK),
    ]
    objects = [held(14, storage_class="STANDARD"), held(15, storage_class="GLACIER")]
    reports = await filled(tmp_path, nodes, objects)
    whole = {
        Tally(3, NONE, True, None, False, 3, 3 * huge, 5, 7),
        Tally(3, NONE, True, None, True, 1, 1, 100, 100),
        Tally(3, NONE, True, "STANDARD", False, 1, 7, 1, 1, 50),
        Tally(4, NONE, False, "GLACIER", False, 1, 7, 2, 2, 50),
    }
    with reports.reading() as snapshot:
        assert set(snapshot.tallies(None, 50)) == whole
        assert set(snapshot.tallies(4, 50)) == {each for each in whole if each.parent == 4}
        assert set(snapshot.tallies(1, 50)) == whole
        assert set(snapshot.folders(None)) == {Folder(each.ino, each.parent, each.name) for each in DIRS}
        assert next(iter(snapshot.folders(2))) == Folder(2, 1, b"users")
        assert {each.ino for each in snapshot.folders(2)} == {2, 3, 4}


async def test_the_same_bytes_are_counted_and_the_worst_named(tmp_path: Path) -> None:
    one, two, three = b"1" * 32, b"2" * 32, b"3" * 32
    nodes = [
        *(row(10 + number, b"one %d" % number, 3, sha256=one, size_bytes=10) for number in range(4)),
        *(row(20 + number, b"two %d" % number, 4, sha256=two, size_bytes=2**61) for number in range(2)),
        row(30, b"three", 4, sha256=three, size_bytes=1),
        *(row(40 + number, b"empty %d" % number, 4, sha256=b"0" * 32, size_bytes=0) for number in range(3)),
        row(50, b"written to", 4, sha256=three, size_bytes=1, state=State.WRITING),
    ]
    reports = await filled(tmp_path, nodes)
    with reports.reading() as snapshot:
        found = snapshot.duplicates(2, 3)
        assert (found.sets, found.files, found.wasted_bytes) == (2, 6, 30 + 2**61)
        assert found.worst == [Twins(two, 2, 2**61, [20, 21]), Twins(one, 4, 10, [10, 11, 12])]
        assert list(snapshot.duplicates(1, 3).worst) == found.worst[:1]
