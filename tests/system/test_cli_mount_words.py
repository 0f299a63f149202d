"""`recfs mount` with the words of mount(8)."""

from pathlib import Path

from tests.system.fake_daemon import run


def test_a_root_that_is_given_as_mount_wants_it_is_answered_with_the_command_to_write(tmp_path: Path) -> None:
    """`mount SOURCE DIR` is in everybody's fingers."""
    refused = run("mount", "-d", tmp_path / "a store", "/mnt/recordings")
    assert refused.exit_code == 2
    assert f"the store goes with --root: recfs mount --root '{tmp_path}/a store' /mnt/recordings" in refused.stderr
    for words in (("/a", "/b", "/c"), ("--root", tmp_path, "/a", "/b")):
        assert "goes with --root" not in run("mount", *words).stderr
    assert not (tmp_path / "a store").exists()
