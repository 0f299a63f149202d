"""`recfs top` on a mount: what programs do is told, and whose bytes they are."""

from __future__ import annotations

import json

import pytest

from .clients import recfs
from .harness import Mount

pytestmark = pytest.mark.modes("auto", "off")


def test_what_a_program_does_is_told_while_somebody_looks(mount: Mount) -> None:
    rec = mount.recording()
    user = rec.parent.parent.name
    mount.call("top")
    with (rec / "a.mp4").open("wb", buffering=0) as file:
        file.write(b"x" * 100_000)
        mount.call("top")
        file.write(b"x" * 300_000)
        found = mount.call("top")
        assert found["open"]["writers"] >= 1
    doing = {each["user"]: each for each in found["users"]}[user]
    assert doing["written_bytes"] + doing["kernel_bytes"] >= 300_000
    assert found["requests"]["create"]["count"] == 1
    assert any(each["path"].endswith("a.mp4") for each in found["files"])
    (line,) = recfs("top", "--once", "--interval", "100ms", "--json", "--root", mount.root).stdout.splitlines()
    assert json.loads(line)["pipeline"].keys() >= {"sealing", "settling", "dirty"}
