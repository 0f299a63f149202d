"""The rules of docs/architecture.md that a program can check."""

import ast
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "recfs"
SOURCES = sorted(PACKAGE.rglob("*.py"))
C_SOURCES = sorted(PACKAGE.rglob("*.[ch]"))
MAX_LINES = 600

TRANSACTIONS = {"atomic", "transaction"}
CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


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
    """Lines at which a task can be suspended inside `with ...atomic()` or `with ...transaction()`."""
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


def test_files_stay_small() -> None:
    sizes = {relative(path): len(path.read_bytes().splitlines()) for path in SOURCES + C_SOURCES}
    assert len(sizes) > 10
    assert {path: lines for path, lines in sizes.items() if lines > MAX_LINES} == {}


def test_the_extension_is_built_anew_when_any_of_its_sources_changes() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    (extension,) = settings["ext-modules"]
    assert sorted(extension["sources"] + extension["depends"]) == [relative(path) for path in C_SOURCES]
    fingerprint = re.search(r"recfs/fs/\S+\.\S*c\S*", (ROOT / "scripts/setup").read_text())
    assert fingerprint is not None
    assert sorted(ROOT.glob(fingerprint.group())) == C_SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_awaited_inside_a_transaction(path: Path) -> None:
    assert list(suspensions(ast.parse(path.read_text()))) == []


def test_sql_modules_are_imported_in_the_catalogue_only() -> None:
    importers = {
        path.relative_to(PACKAGE).parts[0]
        for path in SOURCES
        if {"sqlite3", "sqlite_utils"} & {m.split(".")[0] for m in imported_modules(ast.parse(path.read_text()))}
    }
    assert importers == {"catalogue"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=relative)
def test_core_imports_the_standard_library_only(path: Path) -> None:
    modules = set(imported_modules(ast.parse(path.read_text())))
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
    assert list(clock_calls(ast.parse(path.read_text()))) == []


# --- the checkers above find what they look for ---------------------------------------------------


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("with db.atomic():\n    await save()", [3]),
        ("with self.catalogue.transaction() as tx:\n    if tx:\n        x = [await f() for f in tx]", [4]),
        ("with atomic(), other():\n    async with lock:\n        pass", [3]),
        ("with open(p), db.atomic():\n    async for x in rows:\n        pass", [3]),
        ("with db.atomic():\n    names = [x async for x in rows]", [3]),
        ("with db.atomic():\n    yield row", [3]),
        ("async with db.atomic():\n    pass", [2]),
        ("with db.atomic():\n    save()\nawait done()", []),
        ("with db.atomic():\n    async def later():\n        await save()", []),
        ("with opened():\n    await save()", []),
    ],
)
def test_the_checker_finds_suspensions(body: str, lines: list[int]) -> None:
    source = "async def f():\n" + textwrap.indent(body, "    ")
    assert list(suspensions(ast.parse(source))) == lines


def test_the_checker_allows_a_context_manager_to_yield_in_its_transaction() -> None:
    assert list(suspensions(ast.parse("def f():\n    with db.atomic():\n        yield"))) == []


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
