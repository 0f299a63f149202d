"""Looks after every step of every task whether the rules of docs/architecture.md, "Who may change what", are kept.

For tests: an instrument of trio (trio.abc.Instrument), which costs nothing where it is not installed. Between two steps
of any task no code of recfs runs, so what holds then is what each awaiting task may rely on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

import trio

from recfs.core.model import State
from recfs.state.nodes import FileNode, Node
from recfs.state.waits import Held
from tests.helpers import invariants

if TYPE_CHECKING:
    from recfs.parts import Parts
    from recfs.state.backing_file import BackingFile

Identity = tuple[int, int]
_bystanders: dict[trio.lowlevel.Task, bool] = {}
"""Who only looks, and whether the step in which it began to has been looked at: it may have changed something there."""
FEW_NODES = 40
"""With no more in memory all of it is looked at after each step."""
MOST_NODES = 300
"""With more in memory only open files are looked at."""


@dataclass(frozen=True)
class Locked:
    """A file whose lock somebody holds, as it was after the last step."""

    node: FileNode
    body: BackingFile
    owner: trio.lowlevel.Task | None
    staging: str | None
    in_place: bool
    file: Identity


class Watch(trio.abc.Instrument):
    """One file system's. `found` has what was broken, each kind once."""

    def __init__(
        self, parts: Parts, few_nodes: int = FEW_NODES, *, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """*is_over*: whether the process is dead, which a test may have it be between any two lines."""
        self._parts = parts
        self._is_over = is_over
        self._few_nodes = few_nodes
        self._locked: list[Locked] = []
        self._holders: dict[trio.lowlevel.Task, Node] = {}
        self.found: dict[str, str] = {}

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Look."""
        if self._is_over() or _bystanders.get(task):
            return
        if task in _bystanders:
            _bystanders[task] = True
        for before in self._locked:
            if before.owner is not task:
                self._still(before, task)
        locked = [(node, node.body) for node in self._files() if node.body is not None and node.body.lock.locked()]
        self._locked = [
            Locked(node, body, body.lock.statistics().owner, node.staging, body.in_place, _file(body))
            for node, body in locked
        ]

        if len(self._parts.tree.nodes) <= self._few_nodes:
            self.look()

    def tell(self, kind: str, what: str) -> None:
        """Something is broken."""
        self.found.setdefault(kind, what)

    def look(self) -> None:
        """At the rest of memory, too: it may take a while."""
        for kind, what in invariants.broken(self._parts):
            self.tell(kind, what)

    def _files(self) -> Iterator[FileNode]:
        nodes = self._parts.tree.nodes
        if len(nodes) <= MOST_NODES:
            return (node for node in nodes.values() if isinstance(node, FileNode))
        return (handle.node for handle in list(self._parts.vfs.files.handles.values()))

    # --- BackingFile.lock: see state/backing_file.py -----------------------------------------------------------------

    def _still(self, before: Locked, task: trio.lowlevel.Task) -> None:
        node, body = before.node, before.body
        if node.unlinked or node.body is None or node.state is not State.WRITING:
            return
        now = (node.body, node.staging, body.in_place, _file(body))
        if now != (body, before.staging, before.in_place, before.file):
            self.tell("changed under another's lock", f"{node.path}, by {task.name}: {before} is {now}")

    async def enter(self, held: Held, plain: Callable[[Held], Awaitable[None]]) -> None:
        """A task is about to lock a file: it may have locked no other, and may not be writing the catalogue."""
        task = trio.lowlevel.current_task()
        if task in self._holders:
            self.tell("two files locked", f"{task.name}: {self._holders[task].path} and {held._node.path}")
        if self._parts.behind._lock.statistics().owner is task:
            self.tell("locks in the wrong order", f"{task.name}: {held._node.path} while it writes the catalogue")
        await plain(held)
        self._holders[task] = held._node

    def left(self) -> None:
        """A task has unlocked it again."""
        self._holders.pop(trio.lowlevel.current_task(), None)


@contextlib.contextmanager
def bystander() -> Iterator[None]:
    """For a task of a test that only looks, or has its clock go on, meanwhile: nothing is broken by its steps.

    It takes thousands of them where minutes are to pass, and what others broke is found after their own.
    """
    task = trio.lowlevel.current_task()
    if task in _bystanders:
        yield
        return
    _bystanders[task] = False
    try:
        yield
    finally:
        _bystanders.pop(task, None)


def _file(body: BackingFile) -> Identity:
    info = os.fstat(body.fd)
    return info.st_dev, info.st_ino


@contextlib.contextmanager
def watched(
    parts: Parts, few_nodes: int = FEW_NODES, *, is_over: Callable[[], bool] = lambda: False
) -> Iterator[Watch]:
    """Watch the tasks of the running trio. *few_nodes*: with how many in memory all of it is looked at."""
    watch, enter, leave = Watch(parts, few_nodes, is_over=is_over), Held.__aenter__, Held.__aexit__

    async def entering(held: Held) -> None:
        await watch.enter(held, enter)

    async def leaving(held: Held, *error: object) -> None:
        watch.left()
        await leave(held, *error)

    trio.lowlevel.add_instrument(watch)
    try:
        with mock.patch.object(Held, "__aenter__", entering), mock.patch.object(Held, "__aexit__", leaving):
            yield watch
    finally:
        trio.lowlevel.remove_instrument(watch)
