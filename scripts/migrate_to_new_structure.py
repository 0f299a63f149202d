#!/usr/bin/env python3
"""Bring an old media tree into a store: `recfs migrate plan`, `run` and `verify`, one after the other.

Nothing of the old tree is changed or deleted. A plan that is there already is used as it is, so that it can be looked
at and edited between a --dry-run and the migration, and so that one that was stopped goes on. docs/migration.md tells
the whole story. Exit codes are those of `recfs migrate`: 0 all is clean, 1 something needs a person.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv" / "bin" / "python"
NEEDS_A_PERSON = 1
"""Exit code of a step that did what could be done, and names what is left to people."""


def recfs(*words: str) -> int:
    """Run a recfs command for people to see; its exit code."""
    print(f"$ recfs {shlex.join(words)}", flush=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([PYTHON, "-m", "recfs", *words], env=environment, check=False).returncode


def asked() -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help="the old tree")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--db", metavar="FILE", help="the platform's SQLite database; OLD/data.db if there is one")
    rows.add_argument("--map", metavar="FILE", help="its table of recordings as CSV")
    parser.add_argument("--columns", metavar="FILE", help="what the database calls its table and columns")
    parser.add_argument("--plan", metavar="FILE", default="migration.plan", help="the plan (default: %(default)s)")
    store = parser.add_mutually_exclusive_group()
    store.add_argument("--root", metavar="DIR", help="root directory of the store, which is mounted")
    store.add_argument("--config", metavar="FILE", help="its configuration")
    parser.add_argument("--jobs", metavar="N", help="users at a time")
    parser.add_argument("--bwlimit", metavar="RATE", help="bandwidth of each rsync")
    parser.add_argument("--html", metavar="FILE", help="write the last report as a page of HTML, too")
    parser.add_argument("--dry-run", action="store_true", help="write the plan, and copy nothing")
    found = parser.parse_args()
    if not (found.root or found.config or found.dry_run):
        parser.error("into which store? --root DIR or --config FILE")
    if not PYTHON.exists():
        parser.exit(1, f"{PYTHON} is missing; run scripts/setup first\n")
    return found


def main() -> int:
    """Do it; the exit code."""
    options = asked()

    def given(*names: str) -> list[str]:
        return [word for name in names if (value := getattr(options, name)) for word in (f"--{name}", value)]

    code = 0
    if Path(options.plan).exists():
        print(f"{options.plan} is there already, and is used", flush=True)
    else:
        if not (options.db or options.map) and (Path(options.old) / "data.db").exists():
            options.db = str(Path(options.old) / "data.db")
        code = recfs("migrate", "plan", options.old, *given("db", "map", "columns"), "--output", options.plan)
        if code not in (0, NEEDS_A_PERSON):
            return code
    if options.dry_run:
        print(f"nothing was copied; {options.plan} says what would be")
        return code
    code = recfs("migrate", "run", options.plan, *given("root", "config", "jobs", "bwlimit"))
    if code not in (0, NEEDS_A_PERSON):
        return code
    return recfs("migrate", "verify", options.plan, *given("root", "config", "html"))


if __name__ == "__main__":
    sys.exit(main())
