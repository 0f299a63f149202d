"""Which targets there are, which of them can be measured here, and their start and end."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .peers import BindfsTarget, JuicefsTarget, MergerfsTarget, RcloneTarget, S3fsTarget
from .recfs_target import RecfsOffTarget, RecfsTarget
from .s3_peers import PEERS as FAR_PEERS
from .s3_targets import DirectTarget, Far, Place, RecfsS3Target
from .target import NativeTarget, Target, uninterrupted

DIRECT, NATIVE, RECFS, RECFS_OFF = DirectTarget.name, NativeTarget.name, RecfsTarget.name, RecfsOffTarget.name
_NEAR: tuple[type[Target], ...] = (BindfsTarget, MergerfsTarget, RcloneTarget, S3fsTarget, JuicefsTarget)
PEERS: dict[str, type[Target]] = {kind.name: kind for kind in (*FAR_PEERS, *_NEAR)}
OPTIONAL: dict[str, type[Target]] = {RECFS_OFF: RecfsOffTarget, **PEERS}
"""What --peer chooses among; native and recfs are always measured."""
TARGETS: dict[str, type[Target]] = {NATIVE: NativeTarget, RECFS: RecfsTarget, **OPTIONAL}
FAR_ONLY = PEERS.keys() - {kind.name for kind in _NEAR}
"""Those that there are with S3 only."""


def available(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Split `names` into those that can be measured here, and the others with the reason."""
    reasons = {name: TARGETS[name].missing() for name in names}
    return [name for name in names if reasons[name] is None], {
        name: reason for name, reason in reasons.items() if reason is not None
    }


@contextlib.contextmanager
def running(base: Path, names: Sequence[str]) -> Iterator[list[Target]]:
    """Start the named targets under `base`, but for those with S3 only; stop them on the way out, whatever happened."""
    with _running([TARGETS[name](base / name) for name in names if name not in FAR_ONLY]) as targets:
        yield targets


@contextlib.contextmanager
def running_far(base: Path, place: Place, names: Sequence[str]) -> Iterator[list[Target]]:
    """The same for the targets that work in a bucket: the library, recfs, and those peers that are among `names`.

    The bucket is made if need be, and what the run left in it deleted.
    """
    Far.place = place
    library = place.direct()
    library.make_bucket()
    kinds: list[type[Far]] = [DirectTarget, RecfsS3Target, *(peer for peer in FAR_PEERS if peer.name in names)]
    try:
        with _running([kind(base / f"s3-{kind.name}") for kind in kinds]) as targets:
            yield targets
    finally:
        for prefix in (place.run + "/", *(place.volume(kind.name) + "/" for kind in kinds)):
            library.clear(prefix)


@contextlib.contextmanager
def _running(targets: list[Target]) -> Iterator[list[Target]]:
    try:
        for target in targets:
            target.home.mkdir(parents=True)
            target.start()
        yield targets
    finally:
        # A second Ctrl-C must not leave mounts behind.
        with uninterrupted():
            for target in targets:
                try:
                    if isinstance(target, S3fsTarget):
                        target.clear()
                    target.stop()
                except Exception as error:  # the other targets must be unmounted all the same
                    print(f"bench: stopping {target.name}: {error}", file=sys.stderr)
