"""The documents say what is there: tests they name exist, commands and settings are all told, links lead somewhere."""

import ast
import errno
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from recfs.cli.common.exits import MEANING
from recfs.cli.main import cli
from recfs.config import SECTIONS, Config
from recfs.core.model import TRANSITIONS, State
from recfs.fuse.operations import ERRNO
from recfs.ports import object_errors
from recfs.ports.object_errors import ObjectStoreError

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
LINKING = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
COMMAND_REFERENCE = ROOT / "docs/commands.md"
S3_GUIDE = ROOT / "docs/s3.md"
SEMANTICS = ROOT / "docs/semantics.md"

_TEST_NAME = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+)(?:::(\w+))?)?")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


# --- tests the documents name --------------------------------------------------------------------------------------


@cache
def defined_in(file: Path) -> frozenset[str]:
    """Names of the tests in a file: functions, classes, and methods as Class::method."""
    found = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
        elif isinstance(node, ast.Assign):  # a stateful model's TestCase
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(found)


def missing_tests(text: str) -> Iterator[str]:
    for file, name, method in _TEST_NAME.findall(text):
        path = ROOT / file
        wanted = "::".join(filter(None, (name, method)))
        if not path.is_file() or (wanted and wanted not in defined_in(path)):
            yield f"{file}::{wanted}"


@pytest.mark.parametrize("document", LINKING, ids=names(LINKING))
def test_every_test_a_document_names_exists(document: Path) -> None:
    assert not list(missing_tests(document.read_text("utf-8")))


def test_the_checker_finds_tests_that_do_not_exist() -> None:
    here = "tests/system/test_docs.py"
    assert list(missing_tests(f"`{here}::test_every_test_a_document_names_exists`, `{here}`")) == []
    assert list(missing_tests(f"{here}::test_nothing and tests/unit/test_nowhere.py")) == [
        f"{here}::test_nothing",
        "tests/unit/test_nowhere.py::",
    ]


def paragraphs() -> dict[str, str]:
    """The numbered paragraphs of the semantics, by number."""
    pieces = re.split(r"^\*\*(\d+\.\d+)\*\* ", SEMANTICS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    backing_files = (re.split(r"^#", body, flags=re.MULTILINE)[0] for body in pieces[1::2])
    return dict(zip(pieces[::2], backing_files, strict=True))


def test_promises_are_numbered_in_order_and_none_twice() -> None:
    text = SEMANTICS.read_text("utf-8")
    numbers = [tuple(map(int, each.split("."))) for each in re.findall(r"^\*\*(\d+\.\d+)\*\* ", text, re.MULTILINE)]
    assert len(numbers) > 50
    assert numbers == sorted(set(numbers))


def test_every_promise_names_its_test_or_says_why_there_is_none() -> None:
    told = {number: " ".join(body.split()) for number, body in paragraphs().items()}
    silent = [number for number, body in told.items() if "::test_" not in body and "No test of its own" not in body]
    assert silent == []


def test_every_cell_of_the_table_of_promises_names_its_test() -> None:
    rows = [row.strip("| ").split(" | ") for row in paragraphs()["7.18"].splitlines() if row.startswith("| ")]
    head, *calls = rows
    assert len(calls) >= 9
    assert {len(row) for row in calls} == {len(head)} == {6}
    silent = [
        (call, head[index]) for call, *cells in calls for index, cell in enumerate(cells, 1) if "::test_" not in cell
    ]
    assert silent == []


# --- commands ------------------------------------------------------------------------------------------------------


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that call it."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands(each, (*path, name))
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield path, command


COMMANDS = dict(commands(cli))


@pytest.mark.slow
def test_the_reference_is_what_the_commands_say_of_themselves() -> None:
    command = [sys.executable, ROOT / "scripts/reference", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_in_the_reference(path: tuple[str, ...]) -> None:
    text = COMMAND_REFERENCE.read_text("utf-8")
    heading = f"## `recfs {' '.join(path)}`"
    assert heading in text, "every command has a section of its own"
    section = re.split(r"^#", text.split(heading, 1)[1], flags=re.MULTILINE)[0]
    common = text.split("## Options of every command", 1)[1].split("\n##", 1)[0]
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            longest = max(parameter.opts, key=len)
            assert f"`{longest}" in section + common, f"recfs {' '.join(path)} {longest}"


def test_no_command_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^## `recfs ([\w -]+)`", COMMAND_REFERENCE.read_text("utf-8"), re.MULTILINE)
    assert sorted(described) == sorted(" ".join(path) for path in COMMANDS)


def test_the_exit_codes_are_those_of_the_program() -> None:
    told = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", COMMAND_REFERENCE.read_text("utf-8"), re.MULTILINE))
    assert told == {str(code.value): meaning for code, meaning in MEANING.items()}


# --- settings, states, errors ----------------------------------------------------------------------------------------


def config_keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = SECTIONS.get(name) if model is Config else None
        if section is None:
            yield name
        else:
            yield from config_keys(section)
        assert field.description


def test_every_config_key_is_in_the_example() -> None:
    text = (ROOT / "recfs.conf.example").read_text("utf-8")
    assert [key for key in config_keys(Config) if not re.search(rf"^#?{key} = ", text, re.MULTILINE)] == []


def test_every_setting_a_document_names_exists() -> None:
    known = {f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields}
    wrong = []
    for document in LINKING:
        for section, key in re.findall(r"`\[(\w+)\]\.(\w+)`", document.read_text("utf-8")):
            if f"{section}.{key}" not in known:
                wrong.append(f"{document.name}: [{section}].{key}")
    assert wrong == []


def test_the_errors_are_those_of_the_program() -> None:
    text = SEMANTICS.read_text("utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| (E\w+) \|", text, re.MULTILINE))
    assert {kind: getattr(errno, name) for kind, name in told.items()} == {
        kind.__name__: number for kind, number in ERRNO.items()
    }


def test_every_trouble_with_s3_has_its_remedy_in_the_s3_guide() -> None:
    told = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", S3_GUIDE.read_text("utf-8"), re.MULTILINE)
    groups = ("ObjectStoreError", "StoreOutage")
    kinds = {name for name, kind in vars(object_errors).items() if isinstance(kind, type) and name not in groups}
    assert {name for name in kinds if issubclass(getattr(object_errors, name), ObjectStoreError)} <= set(told)
    assert len(told) == len(set(told))


def test_the_states_and_their_steps_are_those_of_the_program() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    table = re.findall(r"^\| (\w+) → (\w+) \|", text, re.MULTILINE)
    assert {(State(old), State(new)) for old, new in table} == TRANSITIONS
    assert len(table) == len(TRANSITIONS)


# --- links and the two commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", LINKING, ids=names(LINKING))
def test_relative_links_lead_somewhere(document: Path) -> None:
    text = _FENCE.sub("", document.read_text("utf-8"))
    broken = []
    for link in _LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@cache
def anchors(document: Path) -> frozenset[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", document.read_text("utf-8")), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)


def test_the_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for command in ("scripts/quickstart", "scripts/test"):
        assert re.search(rf"^{command}\b", text, re.MULTILINE)
        assert (ROOT / command).is_file()


def test_the_documents_name_no_place_of_their_making() -> None:
    # Store and mount of the examples, what every Debian has, and the routes of the gateway.
    common = (
        "/srv", "/mnt", "/etc", "/dev", "/proc", "/opt", "/usr", "/var", "/sys", "/sbin", "/backup", "/run", "/api",
        "/storage", "/stats", "/trash", "/queue",
    )  # fmt: skip
    somewhere = re.compile(r"(?<![\w.<>*~/)\]])(/[a-z]+)/\w")
    found = {(document.name, path) for document in LINKING for path in somewhere.findall(document.read_text("utf-8"))}
    assert [(name, path) for name, path in sorted(found) if path not in common] == []
