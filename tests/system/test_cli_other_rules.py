"""Commands with a `--config` that is not what the daemon that answers goes by."""

from pathlib import Path
from typing import Any

import pytest

from recfs.cli.common import store as stores
from recfs.config import Config, config_for_root, find_settings, plain
from tests.system.fake_daemon import ANSWERS, FakeDaemon, run

RULES = """
[[retention]]
retention = "90d"
[temp]
max_age = "1h"
[[versions]]
pattern = "users/**/topics_v{N}.json"
keep = 2
"""


@pytest.fixture
def new(tmp_path: Path, root: Path) -> Path:
    """A configuration of the store with rules."""
    file = tmp_path / "new.conf"
    file.write_text(f'root = "{root}"\n{RULES}')
    return file


def _daemon(root: Path, config: Config) -> FakeDaemon:
    nothing = {"sweep_expired": {"recordings": []}, "recording_list": []}
    own = {"settings": {"config": plain(config), "max_descriptors": 1024}}
    return FakeDaemon(root, ANSWERS | nothing | own | {"reload": {"changed": {}, "left": {}, "why": {}}})


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ("sweep", "expired", "--dry-run"),
            "retention; `recfs recording list` with the same --config goes by the file",
        ),
        (("sweep", "temp", "--dry-run"), "temp.max_age"),
        (("sweep", "versions", "--dry-run"), "versions"),
    ],
)
def test_a_look_by_other_rules_than_those_of_the_file_is_told_as_that(
    root: Path, new: Path, command: tuple[str, ...], told: str
) -> None:
    with _daemon(root, config_for_root(root)):
        result = run(*command, "--config", new)
        assert result.exit_code == 0
        assert result.stderr == f"recfs: this is by the daemon's settings, and not by {new}, where others are: {told}\n"
        assert run(*command, "--root", root).stderr == ""
    with _daemon(root, find_settings(new, None, {}).config):
        assert run(*command, "--config", new).stderr == ""


def test_a_reload_does_not_read_the_file_that_is_named(root: Path, new: Path) -> None:
    with _daemon(root, config_for_root(root)):
        told = run("reload", "--config", new).stderr
    assert f"and not {new}: retention, temp.max_age, versions would be others there" in told
    with _daemon(root, find_settings(new, None, {}).config):
        assert run("reload", "--config", new).stderr == ""


def test_recordings_are_listed_by_the_rules_of_the_file_beside_a_daemon(
    root: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So rules are tried before the daemon has them. The catalogue is asked, as without a daemon."""
    asked: list[Config] = []

    def alone(self: stores.Store, method: str, **params: Any) -> list[Any]:
        asked.append(self.config)
        return []

    monkeypatch.setattr(stores.Store, "call_alone", alone)
    (root / ".recfs").mkdir(parents=True)
    (root / ".recfs" / "catalogue.db").touch()
    with _daemon(root, config_for_root(root)) as daemon:
        told = run("recording", "list", "--config", new)
        assert told.stderr == f"recfs: this is by {new}; the daemon goes by other settings: retention\n"
        assert [each.retention[0].retention_s for each in asked] == [90 * 86_400]
        assert ("recording_list", {"user": None, "status": None, "due_s": None}) not in daemon.asked
        assert run("recording", "list", "--root", root).stderr == ""
        assert len(asked) == 1, "without a file it is the daemon's"
    with _daemon(root, find_settings(new, None, {}).config):
        assert run("recording", "list", "--config", new).stderr == ""
    assert len(asked) == 1


def test_a_daemon_that_does_not_tell_its_settings_is_asked_all_the_same(root: Path, new: Path) -> None:
    with FakeDaemon(root, {"recording_list": []}):
        result = run("recording", "list", "--config", new)
    assert (result.exit_code, result.stderr) == (0, "")
