"""The rules of docs/architecture.md that a program can check."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "recfs"
SOURCES = sorted(PACKAGE.rglob("*.py"))
C_SOURCES = sorted(PACKAGE.rglob("*.[ch]"))
MAX_LINES = 600
MAX_PACKAGE_LINES = 3_000

TRANSACTIONS = {"_transaction"}
CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            else:
                yield node.module or ""
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def opens_transaction(node: ast.With | ast.AsyncWith) -> bool:
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in TRANSACTIONS:
                return True
    return False


def suspensions(tree: ast.AST, *, in_async: bool = False, in_transaction: bool = False) -> Iterator[int]:
    """Lines at which a task can be suspended inside `with ..._transaction()`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            # What is only defined inside a transaction does not run in it.
            yield from suspensions(node, in_async=isinstance(node, ast.AsyncFunctionDef))
            continue
        waits = isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) or (
            isinstance(node, ast.comprehension) and bool(node.is_async)
        )
        # An async generator is suspended at its yield; a plain one may be the transaction's context manager.
        waits = waits or (in_async and isinstance(node, ast.Yield | ast.YieldFrom))
        opens = isinstance(node, ast.With | ast.AsyncWith) and opens_transaction(node)
        if waits and (in_transaction or opens):
            yield node.lineno if hasattr(node, "lineno") else node.target.lineno
        yield from suspensions(node, in_async=in_async, in_transaction=in_transaction or opens)


def clock_calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in CLOCKS.get(owner, ()):
                yield f"{owner}.{node.attr} in line {node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{a.name} in line {node.lineno}" for a in node.names if a.name in CLOCKS["time"])


@pytest.mark.slow
def test_import_contracts_are_kept() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint_imports, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


PLANTED = {
    "Arrows point down": ("core/units.py", "recfs.fs.vfs"),
    "Arrows point down: ports": ("ports/rows.py", "recfs.ports.batch"),
    "Arrows point down: state": ("state/nodes.py", "recfs.state.tree"),
    "Arrows point down: media": ("media/programs.py", "recfs.media.runner"),
    "The cage of a program that reads media knows nothing of recfs": ("media/sandbox.py", "recfs.core.units"),
    "Arrows point down: metrics": ("metrics/looking.py", "recfs.metrics.families"),
    "Arrows point down: observing": ("observing/journal.py", "recfs.observing.feed"),
    "Arrows point down: disk": ("disk/diskio.py", "recfs.disk.backing_files"),
    "Arrows point down: parts": ("parts/made.py", "recfs.parts.building"),
    "Arrows point down: disk.watching": ("disk/watching/inotify.py", "recfs.disk.watching.looks"),
    "Arrows point down: disk.home": ("disk/home/path_resolver.py", "recfs.disk.home.publisher"),
    "Arrows point down: disk.commit": ("disk/commit/digests.py", "recfs.disk.commit.committer"),
    "Arrows point down: tier": ("tier/copies.py", "recfs.tier.tier"),
    "Arrows point down: tier.downloads": ("tier/downloads/extents.py", "recfs.tier.downloads.download"),
    "Arrows point down: tier.queue": ("tier/queue/due.py", "recfs.tier.queue.journal"),
    "Arrows point down: tier.uploads": ("tier/uploads/moves.py", "recfs.tier.uploads.uploader"),
    "Arrows point down: fs": ("fs/handles.py", "recfs.fs.vfs"),
    "Arrows point down: fs.leftovers": ("fs/leftovers/local.py", "recfs.fs.leftovers.adoption"),
    "Arrows point down: fs.names": ("fs/names/removal.py", "recfs.fs.names.namespace"),
    "Arrows point down: fs.foreign": ("fs/foreign/rows.py", "recfs.fs.foreign.acts"),
    "Arrows point down: fs.rebuild": ("fs/rebuild/findings.py", "recfs.fs.rebuild.procedure"),
    "Arrows point down: fs.verification": ("fs/verification/repair.py", "recfs.fs.verification.verifier"),
    "Arrows point down: fs.handover": ("fs/handover/inheritance.py", "recfs.fs.handover.open_files"),
    "Arrows point down: fs.session": ("fs/session/paths.py", "recfs.fs.session.session"),
    "Arrows point down: fs.trash": ("fs/trash/returning.py", "recfs.fs.trash.trash"),
    "Arrows point down: fuse": ("fuse/loop.py", "recfs.fuse.operations"),
    "Arrows point down: api": ("api/control.py", "recfs.api.answers"),
    "Arrows point down: cli": ("cli/common/output.py", "recfs.cli.work.queue"),
    "Arrows point down: cli.checks": ("cli/checks/bucket.py", "recfs.cli.checks.doctor"),
    "Arrows point down: cli.common": ("cli/common/store.py", "recfs.cli.common.last_daemon"),
    "Arrows point down: cli.media": ("cli/media/derive.py", "recfs.cli.media.chunks"),
    "Arrows point down: cli.mounts": ("cli/mounts/logs.py", "recfs.cli.mounts.mount"),
    "Arrows point down: cli.reports": ("cli/reports/quota.py", "recfs.cli.reports.status"),
    "Arrows point down: cli.s3": ("cli/s3/copies.py", "recfs.cli.s3.routes"),
    "Arrows point down: cli.work": ("cli/work/queue.py", "recfs.cli.work.waiting"),
    "Arrows point down: cli.upkeep": ("cli/upkeep/sweep.py", "recfs.cli.upkeep.trash"),
    "Arrows point down: cli.migration": ("cli/migration/plan.py", "recfs.cli.migration.migrate"),
    "Arrows point down: migration": ("migration/walking.py", "recfs.migration.planning"),
    "Arrows point down: migration.transfer": ("migration/transfer/items.py", "recfs.migration.transfer.tars"),
    "Arrows point down: migration.run": ("migration/run/trees.py", "recfs.migration.run.running"),
    "Migration is given what it asks a daemon": ("migration/mapping.py", "recfs.api.control"),
    "Arrows point down: web": ("web/files.py", "recfs.web.context"),
    "Arrows point down: web.uploads": ("web/uploads/staged.py", "recfs.web.uploads.commit"),
    "Arrows point down: web.platform": ("web/platform/videos.py", "recfs.web.platform.routes"),
    "Arrows point down: web.recordings": ("web/recordings/ranges.py", "recfs.web.recordings.body"),
    "Arrows point down: web.who": ("web/who/tokens.py", "recfs.web.who.links"),
    "Arrows point down: web.admin": ("web/admin/asking.py", "recfs.web.admin.work"),
    "Arrows point down: web.page": ("web/page/texts.py", "recfs.web.page.frame"),
    "The gateway knows the client library, the core and the errors alone": ("web/problems.py", "recfs.api.client"),
    "Arrows point down: rescue": ("rescue/backups.py", "recfs.rescue.restore"),
    "Arrows point down: client": ("client/uploads.py", "recfs.client.storage"),
    "The client library stands by itself": ("client/media.py", "trio"),
    "Stores never import each other": ("stores/local.py", "recfs.stores.s3.store"),
    "Arrows point down: services.deriving": ("services/deriving/sources.py", "recfs.services.deriving.making"),
    "Arrows point down: services.far": ("services/far/claiming.py", "recfs.services.far.archiving"),
    "Arrows point down: services.importing": (
        "services/importing/looking.py",
        "recfs.services.importing.runs",
    ),
    "Arrows point down: services.verification": (
        "services/verification/scrub.py",
        "recfs.services.verification.runs",
    ),
    "Services never import each other": ("services/meter.py", "recfs.services.housekeeper"),
    "The core does no I/O": ("core/quota.py", "shutil"),
    "SQL lives in the catalogue, and in migration": ("fs/vfs.py", "sqlite3"),
    "Who opens a store knows that its catalogue is SQLite, and nobody else": ("api/answers.py", "recfs.catalogue.rows"),
    "Only the S3 store speaks to boto3": ("tier/tier.py", "boto3"),
    "pyfuse3 stays behind the adapter": ("fs/files.py", "pyfuse3"),
}
"""For each contract a module, and what it must not import."""


@pytest.mark.slow
def test_every_import_contract_can_be_broken(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "recfs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, imported in PLANTED.values():
        with (tmp_path / "recfs" / module).open("a") as file:
            # Only types need it: that counts as well.
            file.write(f"\nif TYPE_CHECKING:\n    import {imported}\n")
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint_imports, "--no-logo", "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    broken = set(re.findall(r"^(.*) BROKEN", result.stdout, re.MULTILINE))
    assert broken == set(PLANTED), result.stdout + result.stderr
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert broken == {contract["name"] for contract in contracts}


def test_files_stay_small() -> None:
    sizes = {relative(path): len(path.read_bytes().splitlines()) for path in SOURCES + C_SOURCES}
    assert len(sizes) > 10
    assert {path: lines for path, lines in sizes.items() if lines > MAX_LINES} == {}


def test_packages_stay_small() -> None:
    sizes = Counter[str]()
    for path in SOURCES + C_SOURCES:
        sizes[relative(path.parent)] += len(path.read_bytes().splitlines())
    assert len(sizes) > 10
    assert {package: lines for package, lines in sizes.items() if lines > MAX_PACKAGE_LINES} == {}


def test_the_extension_is_built_anew_when_any_of_its_sources_changes() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    sources = [
        each for extension in settings["ext-modules"] for each in (*extension["sources"], *extension.get("depends", ()))
    ]
    assert sorted(sources) == [relative(path) for path in C_SOURCES]
    fingerprint = re.search(r"recfs/\S+\.\S*c\S*", (ROOT / "scripts/setup").read_text())
    assert fingerprint is not None
    assert sorted(ROOT.glob(fingerprint.group())) == C_SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_awaited_inside_a_transaction(path: Path) -> None:
    assert list(suspensions(tree_of(path))) == []


def test_transactions_are_called_what_the_checker_looks_for() -> None:
    """Wherever SQL begins one by itself would be past it, too."""
    named = {
        relative(path)
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.With) and opens_transaction(node)
    }
    assert named == {"recfs/catalogue/sqlite.py"}
    begins = re.compile(r"\bbegin (immediate|exclusive)\b", re.IGNORECASE)
    others = [path for path in SOURCES if relative(path) not in named and begins.search(path.read_text())]
    assert [relative(path) for path in others if "async def" in path.read_text()] == []


def states_set(tree: ast.AST) -> Iterator[int]:
    """Lines that set the state of something else than `self`."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                is_state = isinstance(each, ast.Attribute) and each.attr == "state" and isinstance(node, ast.stmt)
                if is_state and not (isinstance(each.value, ast.Name) and each.value.id == "self"):
                    yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_states_change_by_enter(path: Path) -> None:
    """Which looks the step up in the table."""
    if relative(path) != "recfs/state/nodes.py":
        assert list(states_set(tree_of(path))) == []


def raised_of_groups(tree: ast.AST) -> Iterator[int]:
    """Lines that raise another error within `except*`, which Python wraps into a group before 3.11.4."""
    for node in ast.walk(tree):
        if isinstance(node, ast.TryStar):
            inside = (each for handler in node.handlers for each in ast.walk(handler))
            yield from (each.lineno for each in inside if isinstance(each, ast.Raise) and each.exc is not None)


def test_nothing_is_raised_within_except_of_a_group() -> None:
    """errors.first_error_alone is for that."""
    assert {relative(path): lines for path in SOURCES if (lines := list(raised_of_groups(tree_of(path))))} == {}
    found = raised_of_groups(ast.parse("try:\n    a()\nexcept* A as b:\n    if b:\n        raise C\n    raise\n"))
    assert list(found) == [5]


def test_sql_modules_are_imported_in_the_catalogue_and_where_databases_of_others_are_read() -> None:
    importers = {
        path.relative_to(PACKAGE).parts[0]
        for path in SOURCES
        if {"sqlite3", "sqlite_utils"} & {m.split(".")[0] for m in imported_modules(tree_of(path))}
    }
    assert importers == {"catalogue", "migration"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=relative)
def test_core_imports_the_standard_library_only(path: Path) -> None:
    modules = set(imported_modules(tree_of(path)))
    strangers = {
        module
        for module in modules
        if module.split(".")[0] not in sys.stdlib_module_names
        and module != "recfs"
        and not module.startswith((".", "recfs.core", "recfs.errors"))
    }
    assert strangers == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=relative)
def test_core_never_asks_the_time(path: Path) -> None:
    assert list(clock_calls(tree_of(path))) == []


# --- the checkers above find what they look for ---------------------------------------------------


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("with db._transaction():\n    await save()", [3]),
        ("with self._transaction() as tx:\n    if tx:\n        x = [await f() for f in tx]", [4]),
        ("with _transaction(), other():\n    async with lock:\n        pass", [3]),
        ("with open(p), db._transaction():\n    async for x in rows:\n        pass", [3]),
        ("with db._transaction():\n    names = [x async for x in rows]", [3]),
        ("with db._transaction():\n    yield row", [3]),
        ("async with db._transaction():\n    pass", [2]),
        ("with db._transaction():\n    save()\nawait done()", []),
        ("with db._transaction():\n    async def later():\n        await save()", []),
        ("with opened():\n    await save()", []),
    ],
)
def test_the_checker_finds_suspensions(body: str, lines: list[int]) -> None:
    source = "async def f():\n" + textwrap.indent(body, "    ")
    assert list(suspensions(ast.parse(source))) == lines


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("node.state = State.STORED", [1]),
        ("node.state, node.sha256 = State.STORED, None", [1]),
        ("node.state: State = State.STORED", [1]),
        ("node.enter(State.STORED)", []),
        ("state = node.state", []),
    ],
)
def test_the_checker_finds_states_that_are_set(line: str, lines: list[int]) -> None:
    assert list(states_set(ast.parse(line))) == lines


def test_the_checker_allows_a_context_manager_to_yield_in_its_transaction() -> None:
    assert list(suspensions(ast.parse("def f():\n    with db._transaction():\n        yield"))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\ntime.time_ns()", ["time.time_ns in line 2"]),
        ("import datetime\ndatetime.datetime.now()", ["datetime.now in line 2"]),
        ("from time import monotonic", ["time.monotonic in line 1"]),
        ("import time\ntime.gmtime(0)", []),
    ],
)
def test_the_checker_finds_clocks(source: str, found: list[str]) -> None:
    assert list(clock_calls(ast.parse(source))) == found
