"""Each procedure stopped before each of its steps: the next start finds the old or the new state, and nothing else.

A step is a system call that changes the store, or a transaction. The process dies before the n-th of them, for every
n until the procedure comes to its end; what follows is the next start, a drain, and the questions of `Case.judge`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, filesystem, pattern

Tree = dict[str, bytes | None]
Procedure = Callable[[Filesystem], Awaitable[None]]
OTHER = "users/6/recordings/7"
OLD, NEW = pattern(5000, seed=1), pattern(7000, seed=2)
NOTHING_TO_DO = "resealed", "unpublished", "incomplete", "rolled_back", "adopted", "lost"


@dataclass(frozen=True)
class Case:
    """A procedure, what it starts from, and what may be found after its death."""

    name: str
    prepare: Procedure
    run: Procedure
    judge: Callable[[Tree, dict[str, str], bool], None]
    """(everything below users, states of files, whether the procedure came to its end) → AssertionError."""
    lost: bool = False
    """Whether bytes of an unfinished overwrite may be kept in lost+found."""
    trash: bool = False
    """With a trash that keeps deleted bytes."""
    kernel: bool = False
    """With files that the kernel has open by itself."""

    def __str__(self) -> str:
        return self.name


async def one_file(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", OLD)


async def two_files(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", OLD)
    await fs.write(f"{REC}/other", NEW)


async def a_recording(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", OLD)
    await fs.write(f"{REC}/sub/deep", NEW)
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"file", OPERATOR)
    await fs.mkdirs("users/6/recordings")


async def in_steps(fs: Filesystem, number: int, data: bytes, offset: int = 0) -> None:
    """Write in pieces, with a flush of the metadata in between as time would bring it."""
    for start in range(0, len(data), 2500):
        await fs.vfs.files.write(number, offset + start, data[start : start + 2500])
        await fs.parts.behind.flush()


# --- the procedures -----------------------------------------------------------------------------------------------


async def commit(fs: Filesystem) -> None:
    number = await fs.open(f"{REC}/new", os.O_WRONLY | os.O_CREAT)
    await in_steps(fs, number, NEW)
    await fs.close(number)
    await fs.drain()


def judge_commit(tree: Tree, states: dict[str, str], done: bool) -> None:
    assert tree[f"{REC}/file"] == OLD
    new = tree.get(f"{REC}/new", b"")
    assert new is not None
    assert NEW.startswith(new)
    if states.get(f"{REC}/new") == "committed" or done:
        assert new == NEW


async def commit_fsynced(fs: Filesystem) -> None:
    number = await fs.open(f"{REC}/new", os.O_WRONLY | os.O_CREAT)
    await in_steps(fs, number, NEW)
    await fs.vfs.files.fsync(number)
    fs.promised = True
    await fs.close(number)
    await fs.drain()


async def overwrite(fs: Filesystem) -> None:
    number = await fs.open(f"{REC}/file", os.O_WRONLY | os.O_TRUNC)
    await in_steps(fs, number, NEW)
    await fs.close(number)
    await fs.drain()


def judge_overwrite(tree: Tree, states: dict[str, str], done: bool) -> None:
    assert states[f"{REC}/file"] == "committed"
    assert tree[f"{REC}/file"] in ((NEW,) if done else (OLD, NEW))


async def overwrite_twice(fs: Filesystem) -> None:
    for content in (pattern(100, seed=3), NEW):
        number = await fs.open(f"{REC}/file", os.O_WRONLY | os.O_TRUNC)
        await in_steps(fs, number, content)
        await fs.close(number)
    await fs.drain()


def judge_overwrite_twice(tree: Tree, states: dict[str, str], done: bool) -> None:
    assert states[f"{REC}/file"] == "committed"
    assert tree[f"{REC}/file"] in ((NEW,) if done else (OLD, pattern(100, seed=3), NEW))


async def append(fs: Filesystem) -> None:
    number = await fs.open(f"{REC}/file", os.O_WRONLY)
    await in_steps(fs, number, NEW, len(OLD))
    await fs.close(number)
    await fs.drain()


def judge_append(tree: Tree, states: dict[str, str], done: bool) -> None:
    content = tree[f"{REC}/file"]
    assert content is not None
    assert content.startswith(OLD)
    assert (OLD + NEW).startswith(content)
    if states[f"{REC}/file"] == "committed":
        assert content in ((OLD + NEW,) if done else (OLD, OLD + NEW))


async def rename_over(fs: Filesystem) -> None:
    await fs.rename(f"{REC}/other", f"{REC}/file")
    await fs.drain()


def judge_rename_over(tree: Tree, states: dict[str, str], done: bool) -> None:
    old = {f"{REC}/file": OLD, f"{REC}/other": NEW}
    new = {f"{REC}/file": NEW}
    assert files(tree) in ((new,) if done else (old, new))
    assert set(states.values()) == {"committed"}


async def write_and_rename(fs: Filesystem) -> None:
    """What careful programs do: write aside, close, rename over."""
    number = await fs.open(f"{REC}/.part", os.O_WRONLY | os.O_CREAT)
    await in_steps(fs, number, NEW)
    await fs.close(number)
    await fs.rename(f"{REC}/.part", f"{REC}/file")
    await fs.drain()


def judge_write_and_rename(tree: Tree, states: dict[str, str], done: bool) -> None:
    assert states[f"{REC}/file"] == "committed"
    assert tree[f"{REC}/file"] in ((NEW,) if done else (OLD, NEW))
    if tree[f"{REC}/file"] == NEW:
        assert f"{REC}/.part" not in tree


async def delete(fs: Filesystem) -> None:
    await fs.unlink(f"{REC}/file")
    await fs.drain()


def judge_delete(tree: Tree, states: dict[str, str], done: bool) -> None:
    gone, there = {f"{REC}/other": NEW}, {f"{REC}/other": NEW, f"{REC}/file": OLD}
    assert files(tree) in ((gone,) if done else (gone, there))


async def remove_tree(fs: Filesystem) -> None:
    await fs.vfs.trees.remove(await fs.node(REC))
    await fs.drain()


def judge_remove_tree(tree: Tree, states: dict[str, str], done: bool) -> None:
    full = {f"{REC}/file": OLD, f"{REC}/link": b"-> file", f"{REC}/sub/deep": NEW}
    left = files(tree)
    assert left.items() <= full.items()
    if done:
        assert REC not in tree


async def many_files(fs: Filesystem) -> None:
    for number in range(10):
        await fs.write(f"{REC}/many/{number}", OLD)
    await fs.write(f"{REC}/file", NEW)


async def remove_whole(fs: Filesystem) -> None:
    await fs.vfs.trees.remove(await fs.node(f"{REC}/many"))
    await fs.drain()


def judge_remove_whole(tree: Tree, states: dict[str, str], done: bool) -> None:
    """All of them, or none."""
    gone = {f"{REC}/file": NEW}
    there = gone | {f"{REC}/many/{number}": OLD for number in range(10)}
    assert files(tree) in ((gone,) if done else (gone, there))
    assert (f"{REC}/many" in tree) == (files(tree) == there)


async def move_tree(fs: Filesystem) -> None:
    await fs.rename(REC, OTHER)
    await fs.drain()


def judge_move_tree(tree: Tree, states: dict[str, str], done: bool) -> None:
    places = [top for top in (REC, OTHER) if top in tree]
    assert places in ([[OTHER]] if done else [[REC], [OTHER]])
    (top,) = places
    assert files(tree) == {f"{top}/file": OLD, f"{top}/link": b"-> file", f"{top}/sub/deep": NEW}
    assert set(states.values()) == {"committed"}


async def exchange(fs: Filesystem) -> None:
    await fs.rename(f"{REC}/file", f"{REC}/other", exchange=True)
    await fs.drain()


def judge_exchange(tree: Tree, states: dict[str, str], done: bool) -> None:
    old, new = {f"{REC}/file": OLD, f"{REC}/other": NEW}, {f"{REC}/file": NEW, f"{REC}/other": OLD}
    assert files(tree) in ((new,) if done else (old, new))


async def exchange_directories(fs: Filesystem) -> None:
    await fs.rename(f"{REC}/sub", f"{REC}/file", exchange=True)
    await fs.drain()


def judge_exchange_directories(tree: Tree, states: dict[str, str], done: bool) -> None:
    old = {f"{REC}/file": OLD, f"{REC}/sub/deep": NEW, f"{REC}/link": b"-> file"}
    new = {f"{REC}/sub": OLD, f"{REC}/file/deep": NEW, f"{REC}/link": b"-> file"}
    assert files(tree) in ((new,) if done else (old, new))


async def make_and_dress(fs: Filesystem) -> None:
    from recfs.fs.attributes import Changes

    made = await fs.mkdirs(f"{REC}/a/b")
    await fs.vfs.symlink(made.ino, b"link", b"target", OPERATOR)
    await fs.vfs.setattr(made.ino, Changes(mode=0o700), OPERATOR)
    await fs.drain()
    await fs.rename(f"{REC}/a", f"{REC}/c")
    await fs.vfs.setattr((await fs.node(f"{REC}/file")).ino, Changes(mode=0o600, mtime_ns=7), OPERATOR)
    await fs.drain()


def judge_make_and_dress(tree: Tree, states: dict[str, str], done: bool) -> None:
    assert tree[f"{REC}/file"] == OLD
    tops = [top for top in (f"{REC}/a", f"{REC}/c") if top in tree]
    assert len(tops) <= 1
    if done:
        assert tree[f"{REC}/c/b/link"] == b"-> target"


async def remake(fs: Filesystem) -> None:
    """A directory goes, and another takes its name before anything has settled."""
    await fs.vfs.trees.remove(await fs.node(f"{REC}/sub"))
    await fs.write(f"{REC}/sub/again", OLD)
    await fs.unlink(f"{REC}/link")
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"elsewhere", OPERATOR)
    await fs.drain()


def judge_remake(tree: Tree, states: dict[str, str], done: bool) -> None:
    assert tree[f"{REC}/file"] == OLD
    assert tree.get(f"{REC}/sub/deep", NEW) == NEW
    assert tree.get(f"{REC}/link", b"-> file") in (b"-> file", b"-> elsewhere")
    again = tree.get(f"{REC}/sub/again")
    if done or states.get(f"{REC}/sub/again") == "committed":
        assert again == OLD
    if done:
        assert f"{REC}/sub/deep" not in tree


async def cross_renames(fs: Filesystem) -> None:
    """Directories change places with what was inside them."""
    await fs.rename(f"{REC}/a/b", f"{REC}/b")
    await fs.rename(f"{REC}/a", f"{REC}/b/a")
    await fs.rename(f"{REC}/b", f"{REC}/a")
    await fs.drain()


async def nested(fs: Filesystem) -> None:
    await fs.write(f"{REC}/a/b/file", OLD)
    await fs.write(f"{REC}/a/near", NEW)


def judge_cross_renames(tree: Tree, states: dict[str, str], done: bool) -> None:
    stages = [
        {f"{REC}/a/b/file": OLD, f"{REC}/a/near": NEW},
        {f"{REC}/b/file": OLD, f"{REC}/a/near": NEW},
        {f"{REC}/b/file": OLD, f"{REC}/b/a/near": NEW},
        {f"{REC}/a/file": OLD, f"{REC}/a/a/near": NEW},
    ]
    assert files(tree) in (stages[3:] if done else stages)


async def copy_up(fs: Filesystem) -> None:
    number = await fs.open("users/5/thumbnails/a.png", os.O_WRONLY)
    await fs.vfs.files.write(number, 0, b"own")
    await fs.close(number)
    await fs.drain()
    await fs.unlink("users/5/thumbnails/a.png")
    await fs.unlink("users/5/thumbnails/a.png")
    await fs.drain()


async def shared(fs: Filesystem) -> None:
    await fs.write("shared/thumbnails/a.png", OLD)
    await fs.mkdirs("users/5")


def judge_copy_up(tree: Tree, states: dict[str, str], done: bool) -> None:
    seen = tree.get("users/5/thumbnails/a.png")
    if done:
        assert seen is None
    elif seen is not None:
        assert seen in (OLD, b"own" + OLD[3:]), "half a copy is no copy: the shared file is shown, or the copy is whole"


async def append_beside_a_reader(fs: Filesystem) -> None:
    """The kernel has the file open for somebody else: it is changed where it lies."""
    reader, _ = await fs.pass_open(f"{REC}/file")
    await change_beside(fs, os.O_RDWR, len(OLD))
    await fs.close(reader)
    await fs.drain()


async def change_beside(fs: Filesystem, flags: int, offset: int) -> None:
    number, _ = await fs.pass_open(f"{REC}/file", flags)
    for start in range(0, len(NEW), 2500):
        fs.pass_write(number, NEW[start : start + 2500], offset + start)
        fs.vfs.files.modes.measure()
        await fs.parts.behind.flush()
    await fs.close(number)
    await fs.drain()


async def overwrite_beside_a_reader(fs: Filesystem) -> None:
    reader, _ = await fs.pass_open(f"{REC}/file")
    await change_beside(fs, os.O_RDWR | os.O_TRUNC, 0)
    await fs.close(reader)
    await fs.drain()


async def change_twice_beside_a_reader(fs: Filesystem) -> None:
    """Without a byte more or less: only the row tells that it is not whole."""
    reader, _ = await fs.pass_open(f"{REC}/file")
    for _ in range(2):
        number, _ = await fs.pass_open(f"{REC}/file", os.O_RDWR)
        for start in range(0, len(OLD), 2500):
            fs.pass_write(number, NEW[start : min(start + 2500, len(OLD))], start)
            await fs.parts.behind.flush()
        await fs.close(number)
    await fs.close(reader)
    await fs.drain()


def judge_change_twice(tree: Tree, states: dict[str, str], done: bool) -> None:
    content, new = tree[f"{REC}/file"], NEW[: len(OLD)]
    assert content in (OLD, *(new[:end] + OLD[end:] for end in range(0, len(OLD) + 1, 2500)))
    if states[f"{REC}/file"] == "committed":
        assert content in ((new,) if done else (OLD, new))


async def write_and_rename_beside_a_reader(fs: Filesystem) -> None:
    reader, _ = await fs.pass_open(f"{REC}/file")
    await write_and_rename(fs)
    await fs.close(reader)
    await fs.drain()


async def delete_beside_a_reader(fs: Filesystem) -> None:
    reader, _ = await fs.pass_open(f"{REC}/file")
    await delete(fs)
    await fs.close(reader)
    await fs.drain()


CASES = [
    Case("commit", one_file, commit, judge_commit),
    Case("overwrite", one_file, overwrite, judge_overwrite, lost=True),
    Case("overwrite-twice", one_file, overwrite_twice, judge_overwrite_twice, lost=True),
    Case("append", one_file, append, judge_append),
    Case("rename-over", two_files, rename_over, judge_rename_over),
    Case("write-and-rename", one_file, write_and_rename, judge_write_and_rename, lost=True),
    Case("delete", two_files, delete, judge_delete),
    Case("remove-tree", a_recording, remove_tree, judge_remove_tree),
    Case("remove-whole", many_files, remove_whole, judge_remove_whole),
    Case("move-tree", a_recording, move_tree, judge_move_tree),
    Case("exchange", two_files, exchange, judge_exchange),
    Case("exchange-directory-and-file", a_recording, exchange_directories, judge_exchange_directories),
    Case("make-and-dress", one_file, make_and_dress, judge_make_and_dress),
    Case("remake", a_recording, remake, judge_remake),
    Case("cross-renames", nested, cross_renames, judge_cross_renames),
    Case("copy-up", shared, copy_up, judge_copy_up),
    Case("append-beside-a-reader", one_file, append_beside_a_reader, judge_append, kernel=True),
    Case("overwrite-beside-a-reader", one_file, overwrite_beside_a_reader, judge_overwrite, lost=True, kernel=True),
    Case("change-twice-beside-a-reader", one_file, change_twice_beside_a_reader, judge_change_twice, kernel=True),
    Case(
        "write-and-rename-beside-a-reader", one_file, write_and_rename_beside_a_reader, judge_write_and_rename,
        lost=True, kernel=True,
    ),
    Case("delete-beside-a-reader", two_files, delete_beside_a_reader, judge_delete, trash=True, kernel=True),
    Case("overwrite-with-trash", one_file, overwrite, judge_overwrite, lost=True, trash=True),
    Case("delete-with-trash", two_files, delete, judge_delete, trash=True),
    Case("remove-tree-with-trash", a_recording, remove_tree, judge_remove_tree, trash=True),
]  # fmt: skip


def files(tree: Tree) -> Tree:
    """Without the directories."""
    return {path: content for path, content in tree.items() if content is not None}


async def states_of(fs: Filesystem, tree: Tree) -> dict[str, str]:
    """The state word of every file."""
    from recfs.state.nodes import FileNode

    found = {}
    for path in tree:
        node = await fs.node(path)
        if isinstance(node, FileNode):
            found[path] = str(node.state)
    return found


async def die_and_look(place: Path, case: Case, step: int) -> bool:
    """One death before *step*; True when the procedure came to its end before it."""
    retention = "1h" if case.trash else 0
    async with filesystem(place / str(step), start=False, trash={"retention": retention}) as fs:
        fs.files = FakeKernelFiles() if case.kernel else None
        await fs.start()
        await case.prepare(fs)
        await fs.drain()
        done = await fs.until_stopped(case.run, step)
        await fs.crash()
        fs.files = FakeKernelFiles() if case.kernel else None
        where = f"{case}: stopped before step {step} ({' '.join(fs.faults.trace[-8:])} | …)"
        try:
            # The repair dies too, a little later each time; it must not matter how often.
            await fs.start_and_die(1 + step * 5 % 13)
            await fs.reopen()
            await fs.drain()
            tree = await fs.tree("users")
            case.judge(tree, await states_of(fs, tree), done)
            lost = len(os.listdir(fs.root / ".recfs/lost+found"))
            assert lost <= (1 if case.lost else 0)
            trash = fs.rows("select count(*) from garbage")[0]
            assert trash <= (3 if case.trash else 0)
            await fs.assert_consistent(lost=lost, trash=trash)
            await fs.crash()
            await fs.reopen()
            report = fs.parts.recovered
            assert {what: getattr(report, what) for what in NOTHING_TO_DO} == {what: [] for what in NOTHING_TO_DO}
            assert await fs.tree("users") == tree
            await fs.assert_consistent(lost=lost, trash=trash)
        except BaseException as error:
            error.add_note(where)
            raise
        return done


@pytest.mark.may_log("closed database")  # said by a task of the dead, if it is slow to notice
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_death_before_any_step_leaves_the_old_or_the_new(place: Path, case: Case) -> None:
    step = 1
    while not await die_and_look(place, case, step):
        step += 1
    assert step > 5, "no step was stopped: nothing was tested"
