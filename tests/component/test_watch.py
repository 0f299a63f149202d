"""The rules that every component test is watched for (tests/helpers/watch.py): what breaks them is found."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import pytest
import trio

from recfs.core.model import State
from recfs.state.nodes import FileNode
from recfs.state.waits import Held
from tests.helpers.invariants import assert_unbroken, broken

from .build import REC, Filesystem

Undo = Callable[[], object]
FILE, OTHER = f"{REC}/file", f"{REC}/other"


async def written(fs: Filesystem) -> int:
    """Two files open for writing; the number of the first."""
    await fs.mkdirs(REC)
    await fs.open(OTHER, os.O_RDWR | os.O_CREAT)
    return await fs.open(FILE, os.O_RDWR | os.O_CREAT)


async def closed(fs: Filesystem, *kinds: str) -> None:
    """That and nothing else was found; the test goes on with a clean slate."""
    await trio.lowlevel.checkpoint()
    assert fs.watch is not None
    assert set(fs.watch.found) == set(kinds), fs.watch.found
    fs.watch.found.clear()
    for number in list(fs.vfs.files.handles):
        await fs.close(number)


async def test_a_file_is_not_locked_beside_another_nor_while_the_catalogue_is_written(fs: Filesystem) -> None:
    node, other = fs.vfs.files.handles[await written(fs)].node, await fs.node(OTHER)
    async with Held(node.body.lock, node), fs.parts.behind._lock:  # that way round it is right
        pass
    async with Held(node.body.lock, node):
        pass
    async with fs.parts.behind._lock, Held(node.body.lock, node):
        pass
    async with Held(node.body.lock, node), Held(other.body.lock, other):
        pass
    await closed(fs, "locks in the wrong order", "two files locked")


async def test_what_a_lock_holds_is_changed_by_nobody_else(fs: Filesystem) -> None:
    node = fs.vfs.files.handles[await written(fs)].node

    async def holder(task_status: trio.TaskStatus[None]) -> None:
        async with Held(node.body.lock, node):
            task_status.started()
            await done.wait()

    done = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(holder)
        await trio.lowlevel.checkpoint()
        staging, node.staging = node.staging, fs.parts.backing_files.pool.take()[0]
        await trio.lowlevel.checkpoint()
        node.staging = staging
        done.set()
    await closed(fs, "changed under another's lock", "another file is open")


def withdraw_its_ticket(fs: Filesystem, node: FileNode) -> Undo:
    fs.vfs.files.seal(node)
    fs.parts.committer.withdraw(node.ino)
    return lambda: fs.parts.committer.submit(node.ino)


def seal_without_a_word(fs: Filesystem, node: FileNode) -> Undo:
    node.state = State.SEALING
    return partial(setattr, node, "state", State.WRITING)


def lose_its_handles(fs: Filesystem, node: FileNode) -> Undo:
    assert node.body is not None
    node.body.handles = node.body.writers = 0
    return lambda: (setattr(node.body, "handles", 1), setattr(node.body, "writers", 1))


def charge_twice(fs: Filesystem, node: FileNode) -> Undo:
    account = fs.parts.tree.accounts._known["5"]
    account.used_bytes += 7
    return lambda: setattr(account, "used_bytes", account.used_bytes - 7)


def keep_the_name(fs: Filesystem, node: FileNode) -> Undo:
    fs.parts.tree.orphans.add(node)
    return lambda: fs.parts.tree.orphans._nodes.pop(node.ino)


def lose_the_parent(fs: Filesystem, node: FileNode) -> Undo:
    del node.parent.children[node.name]
    return lambda: node.parent.children.update({node.name: node})


def write_a_row_of_nothing(fs: Filesystem, node: FileNode) -> Undo:
    stranger = FileNode(4711, node.parent, b"stranger", 0, 0, 0, 0)
    fs.parts.behind.node(stranger)
    return lambda: fs.parts.behind._nodes.pop(stranger.ino)


def hold_what_is_gone(fs: Filesystem, node: FileNode) -> Undo:
    node.priors = (4711,)
    return lambda: setattr(node, "priors", ())


def lie_elsewhere(fs: Filesystem, node: FileNode) -> Undo:
    place = (node.parent, b"elsewhere")
    fs.parts.tree.locations.record(node, place)
    return lambda: fs.parts.tree.locations.forget(node, place)


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (withdraw_its_ticket, "sealing without a ticket"),
        (seal_without_a_word, "sealing without a ticket"),
        (lose_its_handles, "handles"),
        (lose_its_handles, "written by nobody"),
        (charge_twice, "account"),
        (keep_the_name, "live or removed"),
        (lose_the_parent, "the tree"),
        (write_a_row_of_nothing, "row of what is not there"),
        (hold_what_is_gone, "version not held"),
        (lie_elsewhere, "place"),
    ],
)
async def test_what_contradicts_itself_is_found(
    fs: Filesystem, act: Callable[[Filesystem, FileNode], Undo], kind: str
) -> None:
    number = await written(fs)
    assert_unbroken(fs.parts)
    undo = act(fs, fs.vfs.files.handles[number].node)
    found = {kind for kind, _ in broken(fs.parts)}
    undo()
    assert kind in found
    for each in list(fs.vfs.files.handles):
        await fs.close(each)
