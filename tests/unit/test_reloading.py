"""What a reload changes, what it leaves, and that a fault changes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recfs.config import Config, Settings, find_settings
from recfs.errors import ConfigError
from recfs.reloading import NEW_MOUNT, REMOUNT, UPGRADE, WHILE_RUNNING, plan, settings_of

Read = Callable[[str], Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_text(text: str) -> Settings:
        path = tmp_path / "recfs.conf"
        path.write_text(f'root = "/srv/recfs"\n{text}')
        return find_settings(path, None, {})

    return read_text


def test_every_setting_is_known_and_the_lists_name_no_others() -> None:
    known = set(settings_of(Config.model_validate({"root": "/s", "s3": {"bucket": "media"}})))
    assert known >= WHILE_RUNNING | NEW_MOUNT
    assert not WHILE_RUNNING & NEW_MOUNT
    assert {"root", "passthrough"} <= NEW_MOUNT


def test_what_can_change_does_and_the_rest_is_named(read: Read) -> None:
    now = read('[quota]\nmax_files = 5\n[trash]\nretention = "1d"\n')
    wanted = read('passthrough = "off"\n[quota]\nmax_files = 6\n[trash]\nretention = "2d"\nmax_metadata = "1 GiB"\n')
    found = plan(now, wanted)
    assert found.changed == {"quota.max_files": (5, 6)}
    assert found.left == {"passthrough": REMOUNT, "trash.retention": UPGRADE, "trash.max_metadata": UPGRADE}
    config = found.settings.config
    assert (config.quota.max_files, config.trash.retention, config.passthrough) == (6, 86_400, "auto")
    told = [found.settings.origin(key) for key in ("quota.max_files", "trash.retention", "passthrough")]
    path = wanted.origin("root").partition(",")[0]
    assert told == [f"{path}, line 4", f"{path}, line 5", "default"]


def test_rules_change_as_a_whole(read: Read) -> None:
    now = read('[[retention]]\nretention = "90d"\n')
    found = plan(now, read('[[retention]]\npattern = "users/5/recordings/*"\n[[retention]]\nretention = "30d"\n'))
    assert (list(found.changed), found.left) == (["retention"], {})
    assert [rule.retention_s for rule in found.settings.config.retention] == [None, 30 * 86_400]


def test_a_service_that_there_is_not_takes_another_process(read: Read) -> None:
    off, one, other = read(""), read('[notify]\ncommand = "a"\n'), read('[notify]\ncommand = "b"\n')
    assert plan(off, one).left == {"notify.command": UPGRADE}
    assert plan(one, other).changed == {"notify.command": ("a", "b")}


def test_s3_comes_and_goes_with_another_process_and_takes_its_routes_along(read: Read) -> None:
    route = '[[route]]\npattern = "users/5/**"\nto = "s3"\n'
    with pytest.raises(
        ConfigError, match=r"no S3 tier.*; nothing is changed, for these take more than a reload: s3 \("
    ):
        plan(read(""), read(f'[s3]\nbucket = "media"\n{route}'))
    here = '[s3]\nbucket = "media"\n'
    found = plan(read(here), read(f'{here}prefix = "a"\n{route}'))
    assert (list(found.changed), found.left) == (["route"], {"s3.prefix": UPGRADE})


def test_nothing_has_changed(read: Read) -> None:
    found = plan(read("min_free = 5\n"), read("min_free = 5\n"))
    assert (found.changed, found.left) == ({}, {})
