"""What must hold in the memory of recfs whenever no code of its runs: between any two steps of any task.

`broken` walks everything that is loaded, so it is for tests. What needs several steps to become true is left out, or
asked only where nobody is at it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.layout import Role
from recfs.core.model import State
from recfs.disk.commit.tickets import Stage
from recfs.state.nodes import DirNode, FileNode, Garbage, Node
from recfs.state.problems import reason_of

if TYPE_CHECKING:
    from recfs.parts import Parts

Found = tuple[str, str]
"""The invariant that does not hold, and what of."""


class Loaded(NamedTuple):
    """What is in memory, by kind. Told apart once for all checks: they run after every step of every task."""

    nodes: list[Node]
    files: list[FileNode]
    dirs: list[DirNode]


def broken(parts: Parts) -> Iterator[Found]:
    """Every invariant that does not hold now."""
    try:
        parts.tree.check_invariants()
    except AssertionError as error:
        yield "the tree", str(error)
    nodes = list(parts.tree.nodes.values())
    files = [node for node in nodes if isinstance(node, FileNode)]
    loaded = Loaded(nodes, files, [node for node in nodes if isinstance(node, DirNode)])
    for check in (_names, _lives, _counters, _versions, _places, _tickets, _backing_files, _handles, _dirty):
        try:
            yield from check(parts, loaded)
        except Exception as error:
            yield check.__name__.strip("_"), f"cannot be told: {reason_of(error)}"


def assert_unbroken(parts: Parts) -> None:
    """Fail with all that does not hold."""
    found = [f"{kind}: {what}" for kind, what in broken(parts)]
    assert not found, "\n".join(found)


def _names(parts: Parts, loaded: Loaded) -> Iterator[Found]:
    """A directory's entries are loaded nodes whose parent it is; what lost its name is not among them."""
    nodes, orphans = parts.tree.nodes, parts.tree.orphans._nodes
    for ino in orphans.keys() & nodes.keys() if orphans else ():
        yield "live or removed", nodes[ino].path
    for folder in loaded.dirs:
        for name, child in folder.children.items():
            if nodes.get(child.ino) is not child:
                yield "entry not loaded", child.path
            if child.parent is not folder or child.name != name:
                yield "entry of another directory", f"{os.fsdecode(name)} in {folder.path} is {child.path}"
    for node in list(orphans.values()):
        if not node.unlinked:
            yield "orphan with a name", node.path


def _lives(parts: Parts, loaded: Loaded) -> Iterator[Found]:
    """Each directory knows the recording that it lies in, the outermost, and a recording has a life."""
    for node in loaded.dirs:
        if node.parent is node:
            continue
        is_recording = node.role is Role.RECORDING
        if node.recording is not (node if is_recording else node.parent.recording):
            yield "in another recording", node.path
        if is_recording and node.life is None:
            yield "a recording without a life", node.path


_OF_USERS = (Role.USER, Role.TEMP_USER)


def _counters(parts: Parts, loaded: Loaded) -> Iterator[Found]:
    """A user's account has what their directories add up to."""
    tree = parts.tree
    for node in loaded.dirs:
        if node.rbytes < 0 or node.rfiles < 0:
            yield "less than nothing", f"{node.path}: {node.rbytes} bytes, {node.rfiles} files"
    tops = [tree.root.children.get(name) for name in (b"users", b"temp")]
    if not all(isinstance(top, DirNode) and top.complete for top in tops):
        return
    used: defaultdict[str, int] = defaultdict(int)
    files: defaultdict[str, int] = defaultdict(int)
    for node in loaded.dirs:
        if node.role in _OF_USERS:
            user = node.name.decode()
            if node.account is None or node.account.user != user:
                yield "account of another", f"{node.path}: {node.account and node.account.user}"
            used[user] += node.rbytes
            files[user] += node.rfiles
    for user, account in tree.accounts._known.items():
        if (account.used_bytes, account.used_files) != (used[user], files[user]):
            counted = f"{account.used_bytes} bytes, {account.used_files} files"
            yield "account", f"user {user}: {counted} counted, {used[user]} bytes, {files[user]} files there"


def _versions(parts: Parts, loaded: Loaded) -> Iterator[Found]:
    """A version is held by a file that is there and knows of it."""
    tree = parts.tree
    for entry in tree.garbage.values():
        holder = tree.nodes.get(entry.held_by) if entry.held_by is not None else None
        if holder is not None and (not isinstance(holder, FileNode) or entry.gid not in holder.priors):
            yield "version held in vain", f"garbage {entry.gid} of {os.fsdecode(entry.path)}, held by {holder.path}"
    for node in loaded.files:
        for gid in node.priors:
            kept = tree.garbage.get(gid)
            if kept is None or kept.held_by != node.ino:
                yield "version not held", f"garbage {gid} for {node.path}"


def _places(parts: Parts, _: Loaded) -> Iterator[Found]:
    """Who lies elsewhere is at exactly that place."""
    for ino, names in parts.tree.locations.entries.items():
        for name, item in names.items():
            place = item.moved if isinstance(item, Node) else item.place
            if place is None or place[1] != name or (place[0].ino if place[0] is not None else 0) != ino:
                yield "place", f"{os.fsdecode(name)} in inode {ino}: {item!r} is not there"
            if isinstance(item, Node) and item.unlinked and not isinstance(item, DirNode):
                yield "place of a removed file", item.path
            if isinstance(item, Garbage) and item.gid not in parts.tree.garbage:
                yield "place of what is gone", os.fsdecode(item.path)


def _tickets(parts: Parts, loaded: Loaded) -> Iterator[Found]:
    """A ticket is that of a file which is being sealed, and such a file has one, unless there is time for it."""
    nodes, tickets = parts.tree.nodes, parts.committer._tickets
    for ticket in tickets:
        node = ticket.node
        if node.unlinked or nodes.get(node.ino) is not node:
            yield "ticket of a removed file", node.path
        elif node.state not in (State.SEALING, State.COMMITTED) and ticket.stage is not Stage.UNDER_WAY:
            yield "ticket of a file that is not sealed", f"{node.path}: {node.state}"
    for node in loaded.files:
        if node.state is State.SEALING and not node.is_unhashed and tickets.get(node.ino) is None:
            yield "sealing without a ticket", node.path


def _backing_files(parts: Parts, loaded: Loaded) -> Iterator[Found]:
    """Who writes has a descriptor that can, of the file that the metadata says; a file that is written has a writer."""
    moving = parts.publisher.touches
    for node in loaded.files:
        body = node.body
        if node.state is State.WRITING and (body is None or not body.writers):
            yield "written by nobody", node.path
        if body is None:
            continue
        if body.writers and not body.writable:
            yield "writers without a descriptor that can", node.path
        if body.download is not None or node.state.is_remote or moving(parts.backing_files._places.way(node)):
            continue
        opened, path = os.fstat(body.fd), parts.backing_files._places.local(node)
        try:
            there = parts.store.stat(path)
        except OSError:
            continue  # a test has made the disk fail
        if there is None:
            yield "bytes are elsewhere", f"{node.path}: not {os.fsdecode(path)}"
        elif (opened.st_dev, opened.st_ino) != (there.st_dev, there.st_ino):
            yield "another file is open", f"{node.path} ({node.state}): not {os.fsdecode(path)}"


def _handles(parts: Parts, _: Loaded) -> Iterator[Found]:
    """Every open file is that of its node, and counted."""
    handles: defaultdict[int, int] = defaultdict(int)
    writers: defaultdict[int, int] = defaultdict(int)
    by_node = {}
    for handle in parts.vfs.files.handles.values():
        if handle.node.body is not handle.body:
            yield "handle of another body", handle.node.path
        by_node[id(handle.body)] = handle
        handles[id(handle.body)] += 1
        writers[id(handle.body)] += handle.writes
    for key, handle in by_node.items():
        body = handle.body
        if body.handles < handles[key] or body.writers < writers[key] or body.handles < body.writers:
            counted = f"{body.handles} handles, {body.writers} writers"
            yield "handles", f"{handle.node.path}: {counted} counted, {handles[key]} and {writers[key]} there"


def _dirty(parts: Parts, _: Loaded) -> Iterator[Found]:
    """What has no name has no row to be written."""
    for ino, node in parts.behind._nodes.items():
        if node.unlinked or parts.tree.nodes.get(ino) is not node:
            yield "row of what is not there", node.path
