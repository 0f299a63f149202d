"""scripts/crash: one store after another, each with a seed of its own, a few lives each."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.crash.life import Kind, lives
from tests.fuse.harness import remove_tree
from tests.fuse.s3 import bucket, moto
from tests.helpers.disks import disk
from tests.helpers.userns import leave_fuse_mounts

MIB = 1 << 20
ROOMY, TIGHT = 16_384 * MIB, 160 * MIB
"""Sizes of disks. A roomy one lets the kernel write by itself (16.4)."""
LIVES = 5
LONGEST = 2000
"""Of one message, in characters: it may have a daemon's log in it, which is kept anyway."""


def kind_of(seed: int, asked: argparse.Namespace) -> Kind:
    """What the store of a seed is like, as far as nothing else was asked for."""
    chance = random.Random(seed)
    mode, disk_kind = chance.choice(("auto", "auto", "read", "off")), chance.choice(("tmpfs", "tmpfs", "ext4"))
    s3, tight, retention, near, rough = (chance.random() < share for share in (0.35, 0.25, 0.5, 0.4, 0.25))
    watch, deletes = chance.random() < 0.5, chance.random() < 0.5
    return Kind(
        mode=asked.mode or mode,
        disk=asked.disk or disk_kind,
        s3=s3 if asked.s3 is None else asked.s3,
        tight=tight if asked.tight is None else asked.tight,
        retention=retention if asked.trash is None else asked.trash,
        watch=watch if asked.watch is None else asked.watch,
        deletes=deletes,
        near=near,
        rough=rough if asked.rough is None else asked.rough,
        keep=asked.keep_open,
        longest_s=asked.longest,
        least_calls=asked.least_calls,
    )


def one_store(seed: int, asked: argparse.Namespace, totals: Counter[str]) -> list[str]:
    """The lives of one store; what is wrong."""
    kind = kind_of(seed, asked)
    base = Path(tempfile.mkdtemp(prefix=f"recfs-crash-{os.getpid()}-", dir=asked.dir))
    base.chmod(0o755)
    (base / "store" / "root").mkdir(parents=True)
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.callback(remove_tree, base)
        why_not = stack.enter_context(disk(kind.disk, base / "store" / "root", TIGHT if kind.tight else ROOMY))
        if why_not is not None:
            return [f"no disk of its own: {why_not}"]
        s3 = stack.enter_context(contextlib.contextmanager(bucket)(moto(), base)) if kind.s3 else None
        made = stack.enter_context(lives(base, kind, seed, s3))
        try:
            made.begin()
            while made.number < asked.lives and not wrong:
                began = time.monotonic()
                wrong += made.live()
                totals[str(kind)] += 1
                print(f"seed {seed}, life {made.number}: {kind}, {time.monotonic() - began:.1f} s", flush=True)
            if not wrong:
                wrong += made.end()
        except BaseException as error:  # pytest.fail of the harness is one, and the report says what it says
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong.append(f"{type(error).__name__}: {error}"[:LONGEST])
        if wrong:
            where = asked.keep / f"recfs-crash-{seed}-{made.number}"
            made.keep(where, wrong)
            wrong.append(f"kept in {where}; again: scripts/crash --seed {seed}")
        totals.update({"calls": made.calls, "files compared with their checksums": made.compared})
        totals.update(made.happened)
    return wrong


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="scripts/crash", description="Kill the daemon, and see whether it kept its promises."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--mode", choices=["auto", "read", "off"], help="passthrough (default: by the seed)")
    parser.add_argument("--disk", choices=["tmpfs", "ext4"], help="file system of the store (default: by the seed)")
    parser.add_argument("--s3", action=argparse.BooleanOptionalAction, help="with S3 or without (default: by the seed)")
    parser.add_argument("--tight", action=argparse.BooleanOptionalAction, help="on a small disk (default: by the seed)")
    parser.add_argument("--rough", action=argparse.BooleanOptionalAction, help="slow, on a bad disk (by the seed)")
    parser.add_argument("--trash", action=argparse.BooleanOptionalAction, help="with a trash (default: by the seed)")
    parser.add_argument("--watch", action=argparse.BooleanOptionalAction, help="with the watch (default: by the seed)")
    parser.add_argument("--seed", type=int, help="one store only: that of an earlier run")
    parser.add_argument("--lives", type=int, default=LIVES, help=f"lives of each store (default: {LIVES})")
    parser.add_argument("--longest", type=float, default=2.5, help="seconds of work in a life, at most")
    parser.add_argument("--least-calls", type=int, default=0, help="a life lasts until users have made so many")
    parser.add_argument("--keep-open", action="store_true", help="users keep files open over the daemon's death")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="where faulty stores are kept")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where (default: /dev/shm)")
    return parser.parse_args()


def main() -> int:
    """Lives; 0 when all is right."""
    asked = arguments()
    if os.geteuid():
        print("crash: run as root: it works as several users, on disks of its own", file=sys.stderr)
        return 2
    # A copy of its mounts in the namespace of another process would keep its daemons from ending, and writers open.
    leave_fuse_mounts(ctypes.CDLL(None, use_errno=True))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends it early leaves no mount behind
    end = time.monotonic() + asked.minutes * 60
    totals: Counter[str] = Counter()
    faults = 0
    while True:
        seed = random.SystemRandom().randrange(1 << 30) if asked.seed is None else asked.seed
        for each in one_store(seed, asked, totals):
            print(f"WRONG, seed {seed}: {each}", flush=True)
            faults += 1
        if asked.seed is not None or time.monotonic() > end:
            break
    for what, count in sorted(totals.items()):
        print(f"{count:8} {what}")
    print(f"{faults} faults" if faults else "all is right")
    return 1 if faults else 0
