"""Commands in a working directory that is gone: what is relative is refused in one sentence, all else goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_CHILD = """
import json, os, sys
from pathlib import Path

folder = Path(sys.argv[1])
os.chdir(folder)
os.rmdir(folder)

import click
from click.testing import CliRunner
from recfs.cli.main import cli


def walk(command, names):
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from walk(child, [*names, name])
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield names, command


def filled(command):
    for param in command.params:
        if isinstance(param, click.Argument):
            yield from ["5/x"] * max(param.nargs, 1)
        elif param.required:
            yield from [param.opts[0], param.type.choices[0] if isinstance(param.type, click.Choice) else "5"]


def asked(args, **env):
    result = CliRunner(env=env).invoke(cli, args)
    told.append({"args": args, "env": env, "code": result.exit_code, "out": result.stdout, "err": result.stderr})


store, told = sys.argv[2], []
for names, command in walk(cli, []):
    for where in ([], ["--root", store], ["--root", "usr"], ["--config", "etc/passwd"]):
        asked([*names, *where, *filled(command)])
    if not any(isinstance(each, click.Argument) for each in command.params):
        asked([*names, *filled(command)], RECFS_CONFIG="etc/passwd")
for args in json.loads(sys.argv[3]):
    asked([each.replace("STORE", store) for each in args])
print(json.dumps(told))
"""
GONE = "the working directory is gone (No such file or directory): cd to one that is there, or give absolute paths"
OF_THIS_MACHINE = [
    ["config", "check", "etc/passwd"],
    ["cache", "put", "STORE/users/5/a", "etc/passwd", "--kind", "topics"],
    ["backup", "verify", "--root", "STORE", "--identity", "etc/passwd"],
    ["backup", "drill", "--root", "STORE", "--scratch", "tmp"],
    ["restore-catalogue", "--root", "STORE", "etc/passwd"],
    ["restore-catalogue", "--root", "STORE", "--identity", "etc/passwd"],
    ["mount", "--root", "STORE", "--log-file", "tmp/log", "/mnt"],
]
"""Paths that are there below /, where a command works then, and that are not meant."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each command says, in one process."""
    place: Path = tmp_path_factory.mktemp("cwd")
    (place / "gone").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RECFS_")}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(place / "gone"), str(place / "store"), json.dumps(OF_THIS_MACHINE)],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert len({tuple(each["args"][:2]) for each in found}) > 70
    return found


def test_no_command_has_a_traceback_or_a_bug(told: list[dict[str, Any]]) -> None:
    for each in told:
        assert each["code"] not in (1, 70), each
        assert "Traceback" not in each["err"], each
        if each["code"] not in (0, 2):
            assert len(each["err"].splitlines()) == 1, each


def test_a_relative_store_or_config_is_refused_with_the_remedy(told: list[dict[str, Any]]) -> None:
    relative = [each for each in told if each["env"] or {"usr", "etc/passwd"} & set(each["args"][1:])]
    assert len(relative) > 150
    for each in relative:
        assert (each["code"], GONE in each["err"]) == (5, True), each


def test_what_names_nothing_relative_is_answered(told: list[dict[str, Any]]) -> None:
    answered = {tuple(each["args"]) for each in told if each["code"] == 0}
    assert ("doctor",) in answered
    assert any(args[:3] == ("config", "show", "--root") and args[3].startswith("/") for args in answered)


@pytest.mark.parametrize("args", OF_THIS_MACHINE, ids=lambda args: " ".join(args[:2]))
def test_a_relative_path_of_this_machine_is_not_looked_for_from_the_root(
    told: list[dict[str, Any]], args: list[str]
) -> None:
    found = told[-len(OF_THIS_MACHINE) :][OF_THIS_MACHINE.index(args)]
    assert (found["code"], GONE in found["err"]) == (5, True), found
