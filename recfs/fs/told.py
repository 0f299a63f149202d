"""`user.recfs.facts`: what the attributes of a file or a directory say, in one answer, for whoever asks for many files.

It is JSON, in ASCII: `version`, each attribute under its own name with the text that it has by itself, the user's own
under `own`, what is in a directory as `names`, and `left_out`: which of these is too long to be told here. It waits for
nothing: the checksum of a file that is being sealed is not among it.
"""

from __future__ import annotations

import json
import os
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from recfs.core.layout import Role
from recfs.core.model import State
from recfs.fs import lives

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recfs.fs.contents import Contents
    from recfs.fs.lives import Lives
    from recfs.state.nodes import DirNode, FileNode
    from recfs.state.tree import Tree

ATTRIBUTE: Final = b"facts"
VERSION: Final = 1
OWN_MAX_BYTES: Final = 4096
"""Names and values of the user's own together."""
MEDIA_MAX_BYTES: Final = 16384
"""Of media_facts, which whoever made the file has a say in. With the others the answer stays below 64 KiB."""
NAMES_MAX: Final = 64
NAMES_MAX_BYTES: Final = 4096
"""Names in a directory."""
_OF_CONTENT: Final = (b"status", b"media", b"mime", b"media_facts")


async def of_file(
    contents: Contents, node: FileNode, own: Mapping[bytes, bytes], location: Callable[[FileNode], bytes]
) -> bytes:
    """Tell of a file. *own*: the user's attributes; *location* gives the attribute of that name."""
    of_content = await contents.several(node, _OF_CONTENT)
    told: dict[str, Any] = {name.decode("ascii"): os.fsdecode(value) for name, value in of_content.items()}
    # From here on without an await: state and checksum are of the same bytes.
    told["state"], told["location"] = str(node.state), os.fsdecode(location(node))
    if (digest := checksum_of(node)) is not None:
        told["sha256"] = digest.hex()
    left_out = []
    if len(told.get("media_facts", "")) > MEDIA_MAX_BYTES:
        del told["media_facts"]
        left_out.append("media_facts")
    return _packed(told, own, left_out)


async def of_directory(tree: Tree, lives_: Lives, node: DirNode, own: Mapping[bytes, bytes]) -> bytes:
    """Tell of a directory, with the names in it where these are few."""
    names = await _names(tree, node)
    told: dict[str, Any] = {"rbytes": str(node.rbytes), "rfiles": str(node.rfiles)}
    for name in lives.ATTRIBUTES if node.role is Role.RECORDING else ():
        value = lives.attribute(lives_, node, name)
        if value is not None:
            told[name.decode("ascii")] = os.fsdecode(value)
    if names is not None:
        told["names"] = sorted(os.fsdecode(name) for name in names)
    return _packed(told, own, ["names"] if names is None else [])


async def _names(tree: Tree, node: DirNode) -> list[bytes] | None:
    """The names in a directory, as it lists them; None where these are many, or shared files are shown among them."""
    if node.fallback is not None or node.unlinked:
        return None
    found = (
        list(islice(node.children, NAMES_MAX + 1))
        if node.complete
        else [entry.name for entry in await tree.page(node, 0, NAMES_MAX + 1)]
    )
    fits = len(found) <= NAMES_MAX and sum(map(len, found)) <= NAMES_MAX_BYTES
    return found if fits else None


def checksum_of(node: FileNode, *, md5: bool = False) -> bytes | None:
    """The checksum of the bytes that a file has now; None while they are being written or sealed. Atomic."""
    if node.state.is_whole or node.state.is_remote or node.state is State.CORRUPT:
        return node.md5 if md5 else node.sha256
    return None


def _packed(told: dict[str, Any], own: Mapping[bytes, bytes], left_out: list[str]) -> bytes:
    if sum(len(name) + len(value) for name, value in own.items()) <= OWN_MAX_BYTES:
        told["own"] = {os.fsdecode(name): os.fsdecode(value) for name, value in own.items()}
    else:
        left_out.append("own")
    told |= {"version": VERSION, "left_out": left_out}
    return json.dumps(told, ensure_ascii=True, separators=(",", ":")).encode("ascii")


__all__ = [
    "ATTRIBUTE",
    "MEDIA_MAX_BYTES",
    "NAMES_MAX",
    "OWN_MAX_BYTES",
    "VERSION",
    "checksum_of",
    "of_directory",
    "of_file",
]
