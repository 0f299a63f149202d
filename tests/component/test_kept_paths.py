"""Paths that events and the audit log have of files: kept by directory, and right after any move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.layout import kept_path
from recfs.state.events import paths
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    import pytest

    from .build import Filesystem


def agrees(fs: Filesystem) -> None:
    """Every path that is kept is the one that the tree says."""
    for node in fs.vfs.tree.nodes.values():
        assert fs.vfs.tree.paths.of(node) == kept_path(node.parts())
        if isinstance(node, DirNode):
            assert fs.vfs.tree.paths.below(node, b"new") == kept_path([*node.parts(), b"new"])


async def test_paths_follow_what_is_moved_and_exchanged(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    top = "users/5/recordings/1"
    await fs.mkdirs(f"{top}/a/b")
    await fs.mkdirs(f"{top}/c/d")
    await fs.write(f"{top}/a/b/f", b"x")
    await fs.write(f"{top}/c/d/g", b"y")
    agrees(fs)
    await fs.rename(f"{top}/a", f"{top}/e")
    agrees(fs)
    await fs.rename(f"{top}/e", f"{top}/c", exchange=True)
    agrees(fs)
    await fs.rename(f"{top}/c/b", f"{top}/e/d/b")
    agrees(fs)
    await fs.rename(f"{top}/e/d/b/f", f"{top}/c/f")
    agrees(fs)
    monkeypatch.setattr(paths, "KNOWN", 2)
    agrees(fs)


async def test_a_path_that_is_too_long_is_cut(fs: Filesystem) -> None:
    """Each name of a short directory is kept whole, of a deep one perhaps not."""
    deep = "users/5/recordings/1/" + "/".join(["n" * 255] * 15)
    await fs.mkdirs(deep)
    await fs.write(f"{deep}/{'f' * 255}", b"x")
    await fs.write(f"{deep}/f", b"x")
    agrees(fs)
    agrees(fs)
