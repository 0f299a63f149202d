"""What an operator is told who says something about lifetimes that is hardly meant."""

import json
from pathlib import Path

import pytest

from tests.system.fake_daemon import ANSWERS, FakeDaemon, run


@pytest.mark.parametrize(("action", "told"), [("expire", True), ("none", False)])
def test_a_date_that_is_past_is_told_as_that(root: Path, action: str, told: bool) -> None:
    """Whoever mistypes a year hears of it, and not when the recording is gone."""
    answer = ANSWERS["recording_set_expiry"] | {"action": action, "status": "active"}
    with FakeDaemon(root, {"recording_set_expiry": answer}):
        result = run("recording", "set-expiry", "users/5/recordings/142", "2020-01-31", "--root", root)
    assert result.exit_code == 0
    assert ("it is due already: the next look has it expire" in result.stderr) is told


def test_config_check_tells_of_lifetimes_that_are_hardly_meant(tmp_path: Path) -> None:
    """90 is a minute and a half."""
    file = tmp_path / "recfs.conf"
    file.write_text('root = "/srv/recfs"\n[[retention]]\nretention = 90\n')
    hint = 'retention[1].retention is 1m 30s: a number without a unit is seconds; days are written as in "90d"'
    for args in (("config", "check", file), ("config", "check", "--config", file)):
        result = run(*args)
        assert result.exit_code == 0, "it is allowed"
        assert result.stdout.splitlines()[1:] == [f"look again: {hint}"]
        assert json.loads(run(*args, "--json").stdout)["hints"] == [hint]
