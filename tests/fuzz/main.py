"""What `scripts/fuzz` does: rounds of the fuzzer, one after another, and the report."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuse.harness import remove_tree
from tests.fuzz.fuzz import MODES, Plan, play


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Races of several processes on few names.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument(
        "--mode", default="all", choices=["all", *MODES], help="`passthrough` of the store (default: all)"
    )
    parser.add_argument("--seed", type=int, default=None, help="repeat the choices of an earlier fuzz")
    parser.add_argument("--round", type=float, default=20.0, help="seconds of one round (default: 20)")
    parser.add_argument("--rate", type=float, default=None, help="how many awaits pause, 0 to 1 (default: various)")
    parser.add_argument("--s3", action=argparse.BooleanOptionalAction, help="with S3 or without (default: by the seed)")
    parser.add_argument("--drop-caches", action="store_true", help="have the whole system forget names, too")
    parser.add_argument("--keep", action="store_true", help="keep the stores in which something was wrong")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where (default: /dev/shm)")
    return parser.parse_args()


def plan_of(asked: argparse.Namespace, dice: random.Random, number: int) -> Plan:
    """How the next round goes."""
    seed, clients = dice.randrange(1 << 30), dice.randrange(5, 9)
    rate, looks = dice.choice([0.0, 0.05, 0.2, 0.4]), dice.choice([0.05, 0.3, 1.0])
    limited, trash, s3 = (dice.random() < share for share in (0.25, 0.25, 0.35))
    return Plan(
        seed=seed,
        mode=MODES[number % len(MODES)] if asked.mode == "all" else asked.mode,
        clients=clients,
        seconds=asked.round,
        rate=rate if asked.rate is None else asked.rate,
        looks=looks,
        drop_caches=asked.drop_caches,
        limited=limited,
        trash=trash,
        s3=s3 if asked.s3 is None else asked.s3,
    )


def main() -> int:
    """Fuzz; 0 when all is right."""
    asked = arguments()
    if os.geteuid():
        print("fuzz: run as root: it works as root and as a user", file=sys.stderr)
        return 2
    seed = asked.seed if asked.seed is not None else random.randrange(1 << 30)
    dice = random.Random(seed)
    base = Path(tempfile.mkdtemp(prefix=f"recfs-fuzz-{os.getpid()}-", dir=asked.dir))
    base.chmod(0o755)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends it early leaves no mount behind
    done: dict[str, Counter[str]] = {mode: Counter() for mode in MODES}
    faults, number, end = 0, 0, time.monotonic() + asked.minutes * 60
    print(f"seed {seed}", flush=True)
    try:
        while time.monotonic() < end:
            plan = plan_of(asked, dice, number)
            wrong, counted = play(base / str(number), plan)
            done[plan.mode] += counted
            number += 1
            faults += bool(wrong)
            for each in wrong:
                print(f"WRONG ({plan}): {each}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        if not (asked.keep and faults):
            remove_tree(base)
        for mode, counted in done.items():
            if counted:
                print(f"{mode}: {counted['rounds']} rounds, {counted['acts']} acts", flush=True)
    print(f"{faults} rounds with faults" if faults else "all is right")
    return 1 if faults else 0
