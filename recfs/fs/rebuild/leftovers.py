"""Bytes of recfs's own areas, whose rows are lost: staging, the trash, the holding area. Nothing is deleted.

What lies in staging is adopted by the next start, by its label and under its name, where that name is free. A version
that was closed makes it free: what lies at home is older, and goes to lost+found.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recfs.core.layout import role_of
from recfs.disk.staging import COPY_LABEL, ELSEWHERE, FETCH_LABEL, TRASH_LABEL, VERSION_LABEL, Label
from recfs.errors import FsError
from recfs.fs.recovery.overwrites import was_closed, when_labelled

if TYPE_CHECKING:
    from recfs.fs.rebuild.site import Site
    from recfs.stores.local import StagingFile

_WHY = {
    VERSION_LABEL: "a version of a file that was kept for the trash",
    TRASH_LABEL: "was being brought back from the trash",
}


def label_of(staged: StagingFile) -> Label | None:
    """What a staging file says of itself, if it is a file's next version; else None."""
    try:
        return Label.decode(staged.label or b"")
    except ValueError:
        return None


def put_by(site: Site, *, same_boot: bool) -> int:
    """Put everything where it is found again; gives the highest inode number that a label names."""
    highest = 0
    staging = sorted(
        site.store.scan_staging().values(), key=lambda staged: when_labelled(staged, same_boot=same_boot)
    )  # of what was closed, the last comes last
    winners: dict[bytes, StagingFile] = {}
    for staged in staging:
        kind = next((kind for kind in _WHY if (staged.label or b"").startswith(kind)), None)
        if kind is not None and staged.size_bytes:
            site.set_aside(staged.id.encode(), _WHY[kind], local=site.store.staging(staged.id))
        label = label_of(staged)
        if label is None or (staged.label or b"").startswith((FETCH_LABEL, COPY_LABEL)):
            continue
        highest = max(highest, label.ino, label.parent)
        if was_closed(staged, same_boot=same_boot) and not label.path.startswith(ELSEWHERE) and _fits(label.path):
            earlier = winners.get(label.path)
            if earlier is not None:
                why = "closed, and overwritten by a version that was closed later"
                site.set_aside(label.path, why, local=site.store.staging(earlier.id))
            winners[label.path] = staged
    for path in winners:
        info = site.store.stat(site.local(path))
        if info is None or site.set_aside(path, "an earlier version of what was closed last, and is adopted"):
            site.claimed.add(path)
    for number in sorted(site.store.trashed()):
        site.set_aside(b"trash-%d" % number, "lay in the trash", local=site.store.trash(number))
    for name in sorted(site.store.beneath.entries(site.store.holding_area)):
        why = "lay in the holding area, on its way to a name that nobody knows any more"
        site.set_aside(b"limbo-" + name, why, local=os.path.join(site.store.holding_area, name))
    return highest


def _fits(path: bytes) -> bool:
    try:
        role_of(tuple(path.split(b"/")), is_dir=False)
    except FsError:
        return False
    return True
