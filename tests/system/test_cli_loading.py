"""What a command loads: its own module, and neither those of the others nor what prints tables."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from recfs.cli.common.commands import Commands
from recfs.cli.main import cli
from tests.system.fake_daemon import USER, FakeDaemon

LOADED = """
import sys
from recfs.cli.main import cli
for name in sys.argv[1:]:
    cli.get_command(None, name)
print(*sorted(sys.modules))
"""


def loaded(*commands: str) -> set[str]:
    """Modules that a process has which runs these commands."""
    done = subprocess.run([sys.executable, "-c", LOADED, *commands], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.slow
def test_a_command_line_loads_its_own_command_alone() -> None:
    found = loaded("mount")
    mine = "recfs.cli.mounts.mount"
    others = {
        sys.modules[command.callback.__module__].__name__ for command in cli.commands.values() if command.callback
    }
    assert len(others) > 25
    assert found & others == {mine}
    assert not {name for name in found if name.split(".")[0] in ("rich", "pydantic", "trio", "boto3")}


def test_a_command_is_loaded_when_it_is_asked_for() -> None:
    commands = Commands({"doctor": "recfs.cli.checks.doctor:doctor", "gone": "nowhere:gone", "no": "os:sep"})
    assert list(commands) == ["doctor", "gone", "no"]
    assert commands["doctor"] is cli.commands["doctor"]
    assert commands.get("other") is None
    with pytest.raises(ModuleNotFoundError):
        commands["gone"]
    with pytest.raises(TypeError, match="os:sep is no command"):
        commands["no"]
    commands["gone"] = click.Command("gone")
    assert commands["gone"].name == "gone"
    del commands["no"]
    assert len(commands) == 2


ASKING = """
import sys
from recfs.cli.main import cli
cli.main(sys.argv[1:], standalone_mode=False)
print(*sorted(sys.modules))
"""


@pytest.mark.slow
def test_what_a_daemon_answers_takes_no_configuration(tmp_path: Path) -> None:
    """It has its own, and to load the settings takes longer than all the rest."""
    (tmp_path / ".recfs").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RECFS_")}
    with FakeDaemon(tmp_path, {"quota_show": lambda params: [USER]}):
        done = subprocess.run(
            [sys.executable, "-c", ASKING, "quota", "show", "--root", str(tmp_path)],
            capture_output=True, text=True, check=True, env=env,
        )  # fmt: skip
    assert "1.5 GiB" in done.stdout
    assert not {each.split(".")[0] for each in done.stdout.splitlines()[-1].split()} & {"pydantic", "trio"}
