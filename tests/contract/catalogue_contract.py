"""What every Catalogue keeps to. An adapter's test class inherits this and makes the catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from recfs.core.bounds import MAX_INT, MAX_TIME_NS, MIN_TIME_NS
from recfs.core.life import Cause, Life, Status
from recfs.core.model import Kind, State
from recfs.errors import OutOfSpace, RowRefused
from recfs.ports.batch import Batch
from recfs.ports.catalogue import Catalogue
from recfs.ports.rows import (
    ROOT_INO,
    AccountRow,
    Content,
    GarbageRow,
    JournalRow,
    LocalCopy,
    NodeRow,
    ObjectRow,
    Placement,
    RecordingRow,
    SweepRow,
    TrashRow,
    UnansweredRow,
)

DIGESTS: dict[str, Any] = {"sha256": b"s" * 32, "md5": b"m" * 16}
Break = Callable[[], None]


def row(ino: int, name: bytes, parent: int = ROOT_INO, kind: Kind = Kind.FILE, **changes: Any) -> NodeRow:
    """A committed file, or an empty directory or symlink."""
    file = kind is Kind.FILE
    made = NodeRow(
        ino, parent, name, kind, 0o644, 1000, 1001, 7 if file else 0, 0, 10, 20, 30,
        State.COMMITTED if file else None, DIGESTS["sha256"] if file else None, DIGESTS["md5"] if file else None,
        b"target" if kind is Kind.SYMLINK else None, 0, 0, 0, Placement(home_ino=99),
    )  # fmt: skip
    here = {name: changes.pop(name) for name in Placement._fields if name in changes}
    return made._replace(placement=made.placement._replace(**here), **changes)


def garbage(gid: int, **changes: Any) -> GarbageRow:
    """A deleted file that still lies at home."""
    made = GarbageRow(
        gid, 50, Kind.FILE, b"users/5/x", 7, b"s" * 32, b"m" * 16, 0o644, 1, 2, 20, None, 5, b"x", 99, 40, None
    )
    return made._replace(**changes)


def account(user: str, **changes: Any) -> AccountRow:
    """A user without own limits."""
    return AccountRow(user, 100, 2, "2026-11", 1, None, None, None, None)._replace(**changes)


def held(ino: int, **changes: Any) -> ObjectRow:
    """What S3 has of a file, with a whole copy here."""
    made = ObjectRow(
        ino, f"users/5/{ino}", "etag", 7, b"s" * 32, b"m" * 16, 20, "STANDARD", 40, LocalCopy(50, 1),
    )  # fmt: skip
    here = {name: changes.pop(name) for name in LocalCopy._fields if name in changes}
    return made.here(**here)._replace(**changes)


def work(number: int, **changes: Any) -> JournalRow:
    """An upload that nobody has tried yet."""
    return JournalRow(number, "upload", 10, "", "", "", 7, 0, 60, 0, "", 40)._replace(**changes)


class CatalogueContract:
    """The suite. Subclasses provide the fixtures `catalogue` and `break_next_apply`."""

    @pytest.fixture
    async def filled(self, catalogue: Catalogue) -> Catalogue:
        """A root, a directory and three files."""
        rows = [row(1, b"", kind=Kind.DIR), row(2, b"dir", kind=Kind.DIR)]
        rows += [row(10, b"a", 2), row(11, b"b", 2), row(12, b"c", 2)]
        await catalogue.apply(Batch(nodes=rows))
        return catalogue

    # --- rows ----------------------------------------------------------------------------------------------------

    async def test_rows_come_back_as_they_went_in(self, catalogue: Catalogue) -> None:
        rows = [
            row(1, b"", kind=Kind.DIR),
            row(2, b"not \xff utf-8\n", mode=0o4711, size_bytes=1 << 60, atime_ns=-5, mtime_ns=1 << 61),
            row(3, b"link", kind=Kind.SYMLINK),
            row(4, b"job", kind=Kind.DIR, activity_ns=77, size_bytes=5, rfiles=3, has_xattrs=1),
            row(5, b"writing", state=State.WRITING, sha256=None, md5=None, staging="s-1", home_ino=None, promised=1),
            row(6, b"moving", pending=6, home_parent=0, home_name=b"6"),
        ]
        await catalogue.apply(Batch(nodes=rows))
        for wanted in rows:
            found = await catalogue.node(wanted.ino)
            assert found == wanted
            assert type(found.kind) is Kind
            assert found.state is None or type(found.state) is State

    async def test_what_is_not_there(self, catalogue: Catalogue) -> None:
        assert await catalogue.node(1) is None
        assert await catalogue.child(1, b"x") is None
        assert list(await catalogue.children(1, 0, 10)) == []
        assert await catalogue.account("5") is None
        assert await catalogue.xattrs(1) == {}
        assert await catalogue.whiteouts(1) == set()
        assert (
            list(await catalogue.garbage()) == list(await catalogue.views()) == list(await catalogue.unsettled()) == []
        )
        assert await catalogue.staged() == set()
        assert await catalogue.meta() == {}

    async def test_a_row_is_replaced_by_its_newer_self(self, filled: Catalogue) -> None:
        await filled.apply(Batch(nodes=[row(10, b"renamed", 1, size_bytes=8)]))
        assert await filled.child(2, b"a") is None
        assert await filled.child(1, b"renamed") == await filled.node(10) == row(10, b"renamed", 1, size_bytes=8)

    async def test_the_root_is_nobodys_child(self, filled: Catalogue) -> None:
        assert await filled.child(ROOT_INO, b"") is None
        assert [each.ino for each in await filled.children(ROOT_INO, 0, 10)] == [2]

    async def test_names_that_begin_alike_are_found(self, filled: Catalogue) -> None:
        names = [b"source.", b"source.a", b"source.\xff\xff", b"source", b"source/", b"Source.a", b"a.source.b"]
        await filled.apply(Batch(nodes=[row(100 + number, name, 2) for number, name in enumerate(names)]))
        await filled.apply(Batch(nodes=[row(200, b"source.elsewhere", 1)]))
        assert {each.name for each in await filled.named(2, b"source.", 10)} == set(names[:3])
        assert len(await filled.named(2, b"source.", 2)) == 2
        assert list(await filled.named(2, b"none", 10)) == list(await filled.named(77, b"source.", 10)) == []

    async def test_names_may_change_places_within_a_batch(self, filled: Catalogue) -> None:
        await filled.apply(Batch(nodes=[row(10, b"b", 2), row(11, b"c", 2), row(12, b"a", 2)]))
        assert {each.name: each.ino for each in await filled.children(2, 0, 10)} == {b"b": 10, b"c": 11, b"a": 12}

    @pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 65, 100])
    async def test_a_batch_of_any_length(self, catalogue: Catalogue, count: int) -> None:
        await catalogue.apply(Batch(nodes=[row(1, b"", kind=Kind.DIR), row(5000, b"stays")]))
        names = [b"%d" % index for index in range(count)]
        inos = range(10, 10 + count)
        await catalogue.apply(
            Batch(
                nodes=[row(ino, name) for ino, name in zip(inos, names, strict=True)],
                garbage=[garbage(ino) for ino in inos],
                xattrs=[(ino, b"user.x", b"%d" % ino) for ino in inos],
            )
        )
        turned = [*names[1:], names[0]]
        await catalogue.apply(Batch(nodes=[row(ino, name) for ino, name in zip(inos, turned, strict=True)]))
        found = {each.name: each.ino for each in await catalogue.children(ROOT_INO, 0, 1000)}
        assert found == {b"stays": 5000} | dict(zip(turned, inos, strict=True))
        assert [each.gid for each in await catalogue.garbage()] == list(inos)
        assert [await catalogue.xattrs(ino) for ino in inos] == [{b"user.x": b"%d" % ino} for ino in inos]

        await catalogue.apply(Batch(removed=list(inos), purged=list(inos)))
        assert [each.name for each in await catalogue.children(ROOT_INO, 0, 1000)] == [b"stays"]
        assert list(await catalogue.garbage()) == []
        assert [await catalogue.xattrs(ino) for ino in inos] == [{}] * count

    async def test_a_name_may_pass_to_another_inode_as_its_holder_goes(self, filled: Catalogue) -> None:
        await filled.apply(Batch(nodes=[row(11, b"a", 2)], removed=[10]))
        assert {each.name: each.ino for each in await filled.children(2, 0, 10)} == {b"a": 11, b"c": 12}
        await filled.apply(Batch(nodes=[row(13, b"c", 2)], removed=[12]))
        assert (await filled.child(2, b"c")) == row(13, b"c", 2)

    async def test_children_come_in_pages_by_number(self, filled: Catalogue) -> None:
        await filled.apply(Batch(nodes=[row(n, b"%d" % n, 2) for n in range(30, 20, -1)]))
        seen: list[int] = []
        after = 0
        while page := await filled.children(2, after, 4):
            assert len(page) <= 4
            seen += [each.ino for each in page]
            after = page[-1].ino
        assert seen == [10, 11, 12, *range(21, 31)]

    async def test_unsettled_rows(self, filled: Catalogue) -> None:
        open_rows = [
            row(20, b"w", 2, state=State.WRITING, sha256=None, md5=None),
            row(21, b"s", 2, state=State.SEALING, sha256=None, md5=None),
            row(22, b"p", 2, pending=2),
            row(23, b"d", 2, kind=Kind.DIR, pending=1),
        ]
        rest = [row(24, b"i", 2, state=State.INCOMPLETE, sha256=None, md5=None), row(25, b"x", 2, state=State.CORRUPT)]
        await filled.apply(Batch(nodes=[*reversed(open_rows), *rest]))
        assert list(await filled.unsettled()) == open_rows

    async def test_staged_ids(self, filled: Catalogue) -> None:
        await filled.apply(Batch(nodes=[row(10, b"a", 2, staging="one"), row(11, b"b", 2, staging="two")]))
        assert await filled.staged() == {"one", "two"}
        await filled.apply(Batch(nodes=[row(10, b"a", 2)], removed=[11]))
        assert await filled.staged() == set()

    async def test_jobs_by_age(self, filled: Catalogue) -> None:
        ages = {30: 300, 31: 100, 32: 200, 33: 0}
        await filled.apply(
            Batch(nodes=[row(ino, b"%d" % ino, 2, kind=Kind.DIR, activity_ns=age) for ino, age in ages.items()])
        )
        assert [each.ino for each in await filled.jobs(300)] == [31, 32]
        assert [each.ino for each in await filled.jobs(301)] == [31, 32, 30]

    # --- beside the rows -----------------------------------------------------------------------------------------

    async def test_accounts(self, catalogue: Catalogue) -> None:
        limits = account("6", max_bytes=0, max_files=2**63 - 1, max_file_size=5, max_monthly_uploads=9)
        await catalogue.apply(Batch(accounts=[account("5"), limits]))
        await catalogue.apply(Batch(accounts=[account("5", used_bytes=1)]))
        assert await catalogue.account("5") == account("5", used_bytes=1)
        assert await catalogue.account("6") == limits

    async def test_garbage_oldest_first_until_it_is_purged(self, catalogue: Catalogue) -> None:
        await catalogue.apply(Batch(garbage=[garbage(9), garbage(3, held_by=10), garbage(5, kind=Kind.DIR)]))
        await catalogue.apply(Batch(garbage=[garbage(3, staging="s", home_parent=None, home_name=None)], purged=[9]))
        first = garbage(3, staging="s", home_parent=None, home_name=None)
        assert list(await catalogue.garbage()) == [first, garbage(5, kind=Kind.DIR)]

    async def test_attributes(self, filled: Catalogue) -> None:
        await filled.apply(Batch(xattrs=[(10, b"user.a", b""), (10, b"user.b", b"\0\xff"), (11, b"user.a", b"x")]))
        await filled.apply(Batch(xattrs=[(10, b"user.a", b"1"), (10, b"user.a", b"2"), (10, b"user.b", None)]))
        assert await filled.xattrs(10) == {b"user.a": b"2"}
        assert await filled.xattrs(11) == {b"user.a": b"x"}

    async def test_what_is_kept_of_recordings(self, filled: Catalogue) -> None:
        life = Life(Status.EXPIRED, 1, 2, 3, 4, 5, 6, 7, Cause.RULE, 1, "a note\n\N{SNOWMAN}", "uid 0")
        await filled.apply(Batch(recordings=[RecordingRow(2, life), RecordingRow(10, Life())]))
        found = await filled.recording(2)
        assert found == life
        assert (type(found.status), type(found.expired_by)) == (Status, Cause)
        assert (await filled.recording(10), await filled.recording(11)) == (Life(), None)
        await filled.apply(Batch(recordings=[RecordingRow(2, life._replace(keep=0, expires_ns=None))]))
        assert await filled.recording(2) == life._replace(keep=0, expires_ns=None)
        assert await filled.recording(10) == Life()

    async def test_a_recording_goes_with_its_directory_also_in_the_batch_that_set_it(self, filled: Catalogue) -> None:
        await filled.apply(Batch(recordings=[RecordingRow(2, Life(keep=1)), RecordingRow(10, Life())]))
        await filled.apply(Batch(removed=[2], recordings=[RecordingRow(2, Life(keep=1))]))
        assert (await filled.recording(2), await filled.recording(10)) == (None, Life())

    async def test_times_of_recordings_that_lie_ahead_are_now(self, filled: Catalogue) -> None:
        ahead = Life(born_ns=90, changed_ns=101, expires_ns=500, dated_ns=150, ahead_ns=300, expired_ns=200)
        past = Life(born_ns=10, changed_ns=20, expires_ns=500, dated_ns=30, ahead_ns=300, expired_ns=40)
        await filled.apply(Batch(recordings=[RecordingRow(2, ahead), RecordingRow(10, past)]))
        await filled.forget_future(100)
        assert await filled.recording(2) == ahead._replace(changed_ns=100, dated_ns=100, expired_ns=100)
        assert await filled.recording(10) == past

    async def test_whiteouts(self, filled: Catalogue) -> None:
        await filled.apply(Batch(whiteouts=[(2, b"x", True), (2, b"y", True), (2, b"y", False), (1, b"z", True)]))
        assert await filled.whiteouts(2) == {b"x"}
        await filled.apply(Batch(whiteouts=[(2, b"x", False)]))
        assert await filled.whiteouts(2) == set()

    async def test_views(self, filled: Catalogue) -> None:
        await filled.apply(Batch(views=[(1, 10), (2, 11)]))
        assert sorted(await filled.views()) == [(1, 10), (2, 11)]

    async def test_meta(self, catalogue: Catalogue) -> None:
        await catalogue.apply(Batch(meta={"next_ino": "5", "clean": "1"}))
        await catalogue.apply(Batch(meta={"clean": "0"}))
        assert await catalogue.meta() == {"next_ino": "5", "clean": "0"}

    async def test_what_belongs_to_a_removed_inode_goes_with_it(self, filled: Catalogue) -> None:
        await filled.apply(
            Batch(
                xattrs=[(10, b"user.a", b"1"), (11, b"user.a", b"1")],
                whiteouts=[(2, b"x", True)],
                views=[(1, 10), (2, 11)],
            )
        )
        await filled.apply(Batch(removed=[10, 12, 2]))
        assert await filled.node(10) is None
        assert await filled.xattrs(10) == {}
        assert await filled.whiteouts(2) == set()
        assert await filled.xattrs(11) == {b"user.a": b"1"}
        assert list(await filled.views()) == [(2, 11)]

    async def test_what_is_in_a_removed_directory_goes_in_ranges(self, catalogue: Catalogue) -> None:
        """Its files are told in short, also once their directory has no row, and only those of the range go."""
        here = Placement(home_ino=77)
        files = [row(ino, b"%d" % ino, 2)._replace(placement=here, has_xattrs=1) for ino in (10, 11, 12, 13)]
        other = row(14, b"other", 3)
        await catalogue.apply(Batch(nodes=[*files, other], xattrs=[(ino, b"user.a", b"1") for ino in (10, 11, 14)]))
        plain = [Content(ino, b"%d" % ino, 77, files[0].size_bytes, True) for ino in (10, 11, 12, 13)]
        found = [each._replace(is_plain=bool(each.is_plain)) for each in await catalogue.contents(2, 10, 2)]
        assert found == plain[1:3]
        await catalogue.apply(Batch(emptied=[(2, 10, 12)]))
        assert [each.ino for each in await catalogue.contents(2, 0, 9)] == [13]
        assert await catalogue.node(14) == other
        assert (await catalogue.xattrs(10), await catalogue.xattrs(14)) == ({}, {b"user.a": b"1"})

    @pytest.mark.parametrize(
        "changed",
        [
            {"state": State.SEALING, "sha256": None}, {"has_object": 1}, {"kind": Kind.SYMLINK, "state": None},
            {"placement": Placement(staging="a")}, {"placement": Placement(pending=2)},
            {"placement": Placement(home_parent=3, home_name=b"a")}, {"placement": Placement(promised=1)},
        ],
        ids=str,
    )  # fmt: skip
    async def test_what_is_not_plain_is_told(self, catalogue: Catalogue, changed: dict[str, Any]) -> None:
        await catalogue.apply(Batch(nodes=[row(10, b"a", 2)._replace(**changed), row(11, b"b", 2)]))
        assert [bool(each.is_plain) for each in await catalogue.contents(2, 0, 9)] == [False, True]

    async def test_what_a_removed_inode_was_given_in_the_same_batch_goes_too(self, filled: Catalogue) -> None:
        await filled.apply(
            Batch(xattrs=[(10, b"user.a", b"1")], whiteouts=[(2, b"x", True)], views=[(1, 10)], removed=[10, 2])
        )
        assert await filled.xattrs(10) == {}
        assert await filled.whiteouts(2) == set()
        assert list(await filled.views()) == []

    async def test_removing_what_is_not_there_is_no_error(self, filled: Catalogue) -> None:
        await filled.apply(Batch(removed=[999], purged=[999], xattrs=[(10, b"user.none", None)]))

    async def test_an_empty_batch_changes_nothing(self, filled: Catalogue) -> None:
        assert not Batch()
        await filled.apply(Batch())
        assert await filled.node(10) == row(10, b"a", 2)

    async def test_recorded_home_inos_can_be_forgotten(self, filled: Catalogue) -> None:
        await filled.apply(Batch(garbage=[garbage(1)]))
        await filled.forget_home_inos()
        assert await filled.node(10) == row(10, b"a", 2, home_ino=None)
        assert list(await filled.garbage()) == [garbage(1, home_ino=None)]

    # --- S3 ------------------------------------------------------------------------------------------------------

    async def test_what_s3_holds(self, filled: Catalogue) -> None:
        rows = [held(10, key="not ascii \uf7ff", pinned=1, held=1), held(11, local=0, keep_until_ns=1 << 61)]
        await filled.apply(Batch(objects=rows))
        assert [await filled.object(10), await filled.object(11), await filled.object(12)] == [*rows, None]
        await filled.apply(Batch(objects=[held(11)], objects_gone=[10, 11]))
        assert (await filled.object(10), await filled.object(11)) == (None, held(11))
        await filled.apply(Batch(removed=[11]))
        assert await filled.object(11) is None
        await filled.apply(Batch(objects=[held(11, local=0, used_ns=0)]))
        assert await filled.object(11) == held(11, local=0, used_ns=0)

    async def test_a_place_goes_with_its_file_and_where_it_says_nothing(self, filled: Catalogue) -> None:
        for here in ({"staging": "s"}, {"home_ino": None}, {"staging": "s", "pending": 2}, {"home_ino": None}):
            made = row(10, b"a", 2, **here)
            await filled.apply(Batch(nodes=[made, row(2, b"dir", kind=Kind.DIR, rfiles=3)]))
            assert await filled.node(10) == await filled.child(2, b"a") == made
            assert await filled.staged() == {made.placement.staging} - {None}
        await filled.apply(Batch(nodes=[row(10, b"a", 2, staging="s")]))
        await filled.apply(Batch(removed=[10]))
        assert await filled.staged() == set()
        await filled.apply(Batch(nodes=[row(10, b"a", 2, staging="s")]))
        assert await filled.node(10) == row(10, b"a", 2, staging="s")

    async def test_what_was_taken_back_is_written_the_next_time(self, filled: Catalogue) -> None:
        """A name that another file takes, a change that is not taken: no row is thought to be there that is not."""
        await filled.apply(Batch(nodes=[row(10, b"b", 2, pending=2), row(11, b"a", 2, pending=2)]))
        bad = row(12, b"c", 2, sha256=b"short")
        with pytest.raises(RowRefused):
            await filled.apply(Batch(nodes=[row(10, b"a", 2), row(11, b"b", 2), bad]))
        await filled.apply(Batch(nodes=[row(10, b"new", 2)]), trial=True)
        await filled.apply(Batch(nodes=[row(10, b"a", 2), row(11, b"b", 2)]))
        assert list(await filled.children(2, 0, 10, placed=True)) == [
            row(10, b"a", 2), row(11, b"b", 2), row(12, b"c", 2),
        ]  # fmt: skip

    async def test_requests_without_an_answer(self, filled: Catalogue) -> None:
        rows = [UnansweredRow("users/5/a", 1, b"s" * 32), UnansweredRow("users/5/b", 2, None)]
        await filled.apply(Batch(unanswered=rows))
        await filled.apply(Batch(unanswered=[UnansweredRow("users/5/b", 3, b"")]))
        assert sorted(await filled.unanswered()) == [rows[0], UnansweredRow("users/5/b", 3, b"")]
        await filled.apply(Batch(unanswered=[rows[1]], answered=["users/5/b", "unknown"]))
        assert list(await filled.unanswered()) == rows[:1]

    async def test_what_the_trash_keeps_beside_bytes(self, filled: Catalogue) -> None:
        link = TrashRow(2, 50, Kind.SYMLINK, b"users/5/\xff", 0, None, None, 0o777, 1, 2, -3, 4, 0, b"to")
        far = TrashRow(
            1, 51, Kind.FILE, b"users/5/x", 7, b"s" * 32, b"m" * 16, 0o600, 1, 2, 1 << 61, 4, 0, None, "key", "etag",
            "STANDARD", 9, b"\0packed",
        )  # fmt: skip
        beside = link._replace(gid=3, kind=Kind.FILE, has_bytes=1, target=None)
        await filled.apply(Batch(trash=[link, far, beside], garbage=[garbage(3)]))
        found = list(await filled.trash())
        assert found == [(far._replace(xattrs=b""), 7), (link, 0), (beside, 0)]
        assert type(found[0][0].kind) is Kind
        assert [await filled.trash_xattrs(gid) for gid in (1, 2, 99)] == [b"\0packed", b"", b""]
        await filled.apply(Batch(trash=[far._replace(object_key="aside")], trash_gone=[2, 99], purged=[3]))
        assert list(await filled.trash()) == [(far._replace(object_key="aside", xattrs=b""), 7)]
        assert await filled.trash_xattrs(1) == b"\0packed"

    async def test_runs_of_sweeps(self, filled: Catalogue) -> None:
        rows = [
            SweepRow(number, name, 5, 6, 7, "done", "caf\xe9", 0)
            for number, name in ((2, "temp"), (1, "trash"), (3, "temp"))
        ]
        await filled.apply(Batch(sweeps=rows))
        assert list(await filled.sweeps()) == [rows[1], rows[0], rows[2]]
        await filled.apply(Batch(sweeps=[rows[0]._replace(outcome="nothing", times=4)], sweeps_gone=[3, 99]))
        assert list(await filled.sweeps()) == [rows[1], rows[0]._replace(outcome="nothing", times=4)]

    async def test_names_and_users_of_uploads(self, catalogue: Catalogue) -> None:
        rows = [row(1, b"", 1, kind=Kind.DIR)]
        for ino, top in enumerate((b"users", b"temp", b"shared"), 2):
            rows += [row(ino, top, 1, kind=Kind.DIR), row(10 * ino, b"5", ino, kind=Kind.DIR)]
            rows += [row(100 * ino, b"deep", 10 * ino, kind=Kind.DIR), row(1000 * ino, b"f%d" % ino, 100 * ino)]
        await catalogue.apply(
            Batch(
                nodes=rows,
                journal=[
                    *(work(number, ino=1000 * number) for number in (2, 3, 4)),
                    work(5, ino=999),
                    work(6, kind="move", ino=2000),
                ],
            )
        )
        found = sorted(await catalogue.upload_names())
        assert found == [(2, b"f2", "5"), (3, b"f3", "5"), (4, b"f4", None)]

    async def test_whose_object_lies_under_a_key(self, filled: Catalogue) -> None:
        assert not await filled.any_object()
        assert await filled.object_at("there", 0) is None
        await filled.apply(Batch(objects=[held(10, key="there"), held(11, key="elsewhere")]))
        assert await filled.any_object()
        assert [sorted((await filled.some_objects())[0]), (await filled.some_objects())[1]] == [
            ["elsewhere", "there"],
            0,
        ]
        assert (await filled.object_at("there", 11), await filled.object_at("The", 11)) == (10, None)
        assert await filled.object_at("there", 10) is None
        assert [row.key for row in await filled.objects_after("", 9)] == ["elsewhere", "there"]
        assert [row.key for row in await filled.objects_after("", 1)] == ["elsewhere"]
        assert [row.key for row in await filled.objects_after("elsewhere", 9)] == ["there"]
        await filled.apply(Batch(objects=[held(10, key="moved")]))
        assert (await filled.object_at("there", 0), await filled.object_at("moved", 0)) == (None, 10)
        await filled.apply(Batch(objects=[held(11, key="moved")]))
        assert (await filled.object_at("moved", 11), await filled.object_at("moved", 10)) == (10, 11)

    async def test_objects_in_order_of_the_bytes_of_their_keys(self, filled: Catalogue) -> None:
        keys = ["a", "a/b", "a\uf7ff", "a\U0001f600", "b"]
        assert list(await filled.objects_by_key("", 10)) == []
        rows = [held(10 + number, key=key) for number, key in enumerate(keys)]
        await filled.apply(Batch(objects=[rows[2], rows[0], rows[4], rows[3], rows[1]]))
        assert list(await filled.objects_by_key("", 10)) == rows
        assert list(await filled.objects_by_key("", 2)) == rows[:2]
        assert list(await filled.objects_by_key("a/b", 2)) == rows[2:4]
        assert list(await filled.objects_by_key("b", 2)) == []

    async def test_the_journal_is_in_order_of_its_numbers(self, filled: Catalogue) -> None:
        tried = work(3, upload_id="u", parts='{"sha256": ""}', attempts=2, next_try_ns=99, failed=1, error="no \u20ac")
        await filled.apply(Batch(journal=[work(9, kind="delete", ino=0, key="k"), work(3), work(5)]))
        await filled.apply(Batch(journal=[tried], journal_done=[5, 77]))
        assert list(await filled.journal()) == [tried, work(9, kind="delete", ino=0, key="k")]
        await filled.apply(Batch(removed=[10]))
        assert len(await filled.journal()) == 2, "work outlives the file: its multipart upload has to be aborted"

    async def test_objects_below_a_directory_at_any_depth(self, filled: Catalogue) -> None:
        rows = [row(20, b"sub", 2, kind=Kind.DIR), row(21, b"other", kind=Kind.DIR)]
        rows += [row(30, b"x", 20, has_object=1), row(31, b"y", 2, has_object=1), row(32, b"z", 21, has_object=1)]
        rows += [row(33, b"none", 20), row(9, b"first", 20, has_object=1)]
        await filled.apply(Batch(nodes=rows))
        assert list(await filled.objects_below(2, 0, 10)) == [9, 30, 31]
        assert list(await filled.objects_below(2, 9, 1)) == [30]
        assert list(await filled.objects_below(20, 0, 10)) == [9, 30]
        assert list(await filled.objects_below(ROOT_INO, 0, 10)) == [9, 30, 31, 32]
        assert list(await filled.objects_below(33, 0, 10)) == []

    async def test_files_by_their_inode_numbers(self, filled: Catalogue) -> None:
        known = list(await filled.files(0, 100))
        rows = [row(20, b"sub", 2, kind=Kind.DIR), row(21, b"link", 2, kind=Kind.SYMLINK)]
        states = (State.WRITING, State.COMMITTED, State.EVICTED)
        rows += [row(30 + number, b"%d" % number, 20, state=state) for number, state in enumerate(states)]
        await filled.apply(Batch(nodes=rows))
        assert list(await filled.files(0, 100)) == [*known, 30, 31, 32]
        assert list(await filled.files(30, 1)) == [31]
        assert list(await filled.files(32, 10)) == []

    async def test_what_may_be_evicted_least_recently_used_first(self, filled: Catalogue) -> None:
        inos = range(20, 26)
        stored = [row(ino, b"%d" % ino, 2, state=State.STORED, has_object=1) for ino in inos]
        stored[5] = stored[5]._replace(state=State.COMMITTED)
        objects = [
            held(20, used_ns=300), held(21, used_ns=100), held(22, pinned=1), held(23, keep_until_ns=1001),
            held(24, local=0), held(25),
        ]  # fmt: skip
        await filled.apply(Batch(nodes=stored, objects=objects))
        assert list(await filled.evictable(1000, 10)) == [21, 20]
        assert list(await filled.evictable(1000, 1)) == [21]
        assert list(await filled.evictable(1001, 10)) == [23, 21, 20]

    async def test_bytes_of_local_copies(self, filled: Catalogue) -> None:
        assert await filled.local_object_bytes() == 0
        await filled.apply(Batch(objects=[held(10), held(11, local=0), held(12, size_bytes=1 << 40, pinned=1)]))
        assert await filled.local_object_bytes() == 7 + (1 << 40)

    async def test_fetches_of_the_last_run_are_forgotten(self, filled: Catalogue) -> None:
        kept = [row(11, b"b", 2, state=State.STORED), row(12, b"c", 2, state=State.ARCHIVED)]
        await filled.apply(Batch(nodes=[row(10, b"a", 2, state=State.FETCHING), *kept]))
        await filled.forget_fetches()
        assert await filled.node(10) == row(10, b"a", 2, state=State.EVICTED)
        assert [await filled.node(11), await filled.node(12)] == kept

    # --- all or nothing ------------------------------------------------------------------------------------------

    async def test_a_batch_that_fails_changes_nothing_and_can_be_applied_again(
        self, filled: Catalogue, break_next_apply: Callable[[Catalogue], None]
    ) -> None:
        batch = Batch(
            nodes=[row(10, b"b", 2), row(11, b"a", 2), row(20, b"new", 2)],
            removed=[12],
            accounts=[account("5")],
            garbage=[garbage(1)],
            xattrs=[(10, b"user.a", b"1")],
            whiteouts=[(2, b"x", True)],
            views=[(1, 10)],
            objects=[held(10)],
            journal=[work(1)],
            meta={"clean": "0"},
        )
        break_next_apply(filled)
        with pytest.raises(OutOfSpace):
            await filled.apply(batch)
        assert [(each.ino, each.name) for each in await filled.children(2, 0, 10)] == [
            (10, b"a"),
            (11, b"b"),
            (12, b"c"),
        ]
        assert await filled.account("5") is None
        assert list(await filled.garbage()) == list(await filled.views()) == []
        assert await filled.meta() == {}
        assert (await filled.object(10), list(await filled.journal())) == (None, [])
        await filled.apply(batch)
        assert [(each.ino, each.name) for each in await filled.children(2, 0, 10)] == [
            (10, b"b"), (11, b"a"), (20, b"new"),
        ]  # fmt: skip
        assert await filled.xattrs(10) == {b"user.a": b"1"}
        assert await filled.meta() == {"clean": "0"}

    async def test_sync_may_be_called_at_any_time(self, filled: Catalogue) -> None:
        sync: Callable[[], Awaitable[None]] = filled.sync
        await sync()
        await sync()
        await filled.apply(Batch(meta={"a": "b"}))
        await sync()

    # --- what is not taken ---------------------------------------------------------------------------------------

    async def test_a_batch_with_a_row_that_is_not_taken_changes_nothing(self, filled: Catalogue) -> None:
        batch = Batch(nodes=[row(21, b"fine", 2), row(20, b"bad", 2, sha256=b"short")], meta={"a": "b"})
        with pytest.raises(RowRefused):
            await filled.apply(batch)
        assert await filled.node(21) is None
        assert "a" not in await filled.meta()

    async def test_a_trial_tells_and_changes_nothing(self, filled: Catalogue) -> None:
        await filled.apply(Batch(nodes=[row(21, b"fine", 2)], meta={"a": "b"}), trial=True)
        assert await filled.node(21) is None
        assert "a" not in await filled.meta()
        with pytest.raises(RowRefused):
            await filled.apply(Batch(nodes=[row(20, b"bad", 2, sha256=b"short")]), trial=True)

    # --- integers ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("ns", [MIN_TIME_NS, -500_000_000, MAX_INT, MAX_INT + 1, MAX_TIME_NS])
    async def test_times_have_the_range_of_ext4(self, filled: Catalogue, ns: int) -> None:
        rows = [row(20, b"t", 2, atime_ns=ns, mtime_ns=ns, ctime_ns=ns), row(21, b"other", 2)]
        await filled.apply(Batch(nodes=rows, garbage=[garbage(1, mtime_ns=ns)], objects=[held(20, mtime_ns=ns)]))
        assert [await filled.node(20), await filled.node(21)] == rows
        assert [each.mtime_ns for each in await filled.garbage()] == [ns]
        assert await filled.object(20) == held(20, mtime_ns=ns)
        assert not filled.refused

    async def test_sums_saturate_and_can_be_added_up(self, filled: Catalogue) -> None:
        folder = row(30, b"d", 2, Kind.DIR, size_bytes=3 * 2**62)
        files = [row(31 + n, b"%d" % n, 30, size_bytes=2**62) for n in range(3)]
        await filled.apply(Batch(nodes=[folder, *files], accounts=[account("5", used_bytes=3 * 2**62)]))
        found = await filled.node(30)
        assert found is not None
        assert found.size_bytes == MAX_INT
        assert await filled.bytes_below(30) == 3 * 2**62
        assert await filled.account("5") == account("5", used_bytes=MAX_INT)
        assert not filled.refused

    async def test_the_highest_inode_number_is_known(self, catalogue: Catalogue, filled: Catalogue) -> None:
        assert await filled.highest_ino() >= 2
        await filled.apply(Batch(nodes=[row(50, b"last", 2)]))
        assert await filled.highest_ino() == 50
        await filled.apply(Batch(removed=[50], garbage=[garbage(7)._replace(ino=51)]))
        assert await filled.highest_ino() == 51

    @pytest.mark.expect_log("a row does not fit")
    async def test_a_row_that_does_not_fit_is_told_and_stops_no_other(self, filled: Catalogue) -> None:
        await filled.apply(Batch(nodes=[row(20, b"big", 2, uid=1 << 70), row(21, b"fine", 2)]))
        assert await filled.node(20) == row(20, b"big", 2, uid=MAX_INT)
        assert await filled.node(21) == row(21, b"fine", 2)
        assert ["inode 20: uid" in each for each in filled.refused] == [True]
