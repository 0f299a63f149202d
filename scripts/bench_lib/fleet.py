"""Which targets there are, which of them can be measured here, and their start and end."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .peers import BindfsTarget, MergerfsTarget, RcloneTarget, S3fsTarget
from .recfs_target import RecfsOffTarget, RecfsTarget
from .target import NativeTarget, Target, uninterrupted

NATIVE, RECFS, RECFS_OFF = NativeTarget.name, RecfsTarget.name, RecfsOffTarget.name
PEERS: dict[str, type[Target]] = {kind.name: kind for kind in (BindfsTarget, MergerfsTarget, RcloneTarget, S3fsTarget)}
OPTIONAL: dict[str, type[Target]] = {RECFS_OFF: RecfsOffTarget, **PEERS}
"""What --peer chooses among; native and recfs are always measured."""
TARGETS: dict[str, type[Target]] = {NATIVE: NativeTarget, RECFS: RecfsTarget, **OPTIONAL}


def available(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Split `names` into those that can be measured here, and the others with the reason."""
    reasons = {name: TARGETS[name].missing() for name in names}
    return [name for name in names if reasons[name] is None], {
        name: reason for name, reason in reasons.items() if reason is not None
    }


@contextlib.contextmanager
def running(base: Path, names: Sequence[str]) -> Iterator[list[Target]]:
    """Start the named targets under `base`; stop them on the way out, whatever happened."""
    targets = [TARGETS[name](base / name) for name in names]
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
