"""What a reload changes, what it leaves, and that a fault changes nothing."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recfs.config import SECTIONS, Config, Settings, changes, find_settings
from recfs.config.changes import NEW_MOUNT, REMOUNT, RESTART, UPGRADE, WHILE_RUNNING, plan, settings_of
from recfs.config.model import LISTS
from recfs.errors import ConfigError

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


def test_the_example_names_what_takes_more_than_a_reload() -> None:
    """And nothing else: a section where all of it does, else the setting."""
    lines = (Path(__file__).parents[2] / "recfs.conf.example").read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("#   A new process that goes on"))
    named = set(re.findall(r"\[\w+\]|[\w.]+\w", " ".join(lines[begin : begin + 5]).replace("recfs serve", "")))
    every = settings_of(Config.model_validate({"root": "/s", "s3": {"bucket": "media"}}))
    takes_more = every.keys() - WHILE_RUNNING
    sections = {key.partition(".")[0] for key in takes_more if "." in key}
    whole = {each for each in sections if not any(key.startswith(f"{each}.") for key in WHILE_RUNNING)}
    wanted = {f"[{each}]" for each in whole} | {key for key in takes_more if key.partition(".")[0] not in whole}
    assert {each for each in named if each.startswith("[") or each in every} == wanted


def test_what_can_change_does_and_the_rest_is_named(read: Read) -> None:
    now = read("[quota]\nmax_files = 5\n[commit]\nhash_threads = 3\n")
    wanted = read(
        'passthrough = "off"\n[quota]\nmax_files = 6\n[commit]\nhash_threads = 2\n'
        '[catalogue]\nflush_interval = "50ms"\n[trash]\ncharged = true\n'
    )
    found = plan(now, wanted)
    assert found.changed == {"quota.max_files": (5, 6), "trash.charged": (False, True)}
    assert found.left == {"passthrough": REMOUNT, "catalogue.flush_interval": UPGRADE, "commit.hash_threads": UPGRADE}
    config = found.settings.config
    assert (config.quota.max_files, config.commit.hash_threads, config.passthrough) == (6, 3, "auto")
    told = [found.settings.origin(key) for key in ("quota.max_files", "commit.hash_threads", "passthrough")]
    path = wanted.origin("root").partition(",")[0]
    assert told == [f"{path}, line 4", f"{path}, line 5", "default"]


def test_rules_change_as_a_whole(read: Read) -> None:
    now = read('[[retention]]\nretention = "90d"\n')
    found = plan(now, read('[[retention]]\npattern = "users/5/recordings/*"\n[[retention]]\nretention = "30d"\n'))
    assert (list(found.changed), found.left) == (["retention"], {})
    assert [rule.retention_s for rule in found.settings.config.retention] == [None, 30 * 86_400]


def test_a_command_comes_changes_and_goes_with_its_section(read: Read) -> None:
    off, other = read(""), read('[notify]\ncommand = "b"\n')
    one = read('[notify]\ncommand = "a"\nevents = ["committed"]\n')
    kinds = ("committed",), ("corrupt", "quota_reached")
    assert plan(off, other).changed == {"notify.command": (None, "b")}
    changed = plan(one, other).changed
    assert {key: tuple(map(_hashable, values)) for key, values in changed.items()} == {
        "notify.command": ("a", "b"), "notify.events": kinds,
    }  # fmt: skip
    gone = plan(one, off)
    assert (set(gone.changed), gone.left) == ({"notify.command", "notify.events"}, {})
    assert gone.settings.config.notify.command is None


def test_a_service_that_there_is_not_takes_another_process(read: Read) -> None:
    silent, one = read("[events]\nenabled = false\n"), read('[notify]\ncommand = "a"\n')
    assert plan(silent, one).left == {"events.enabled": UPGRADE, "notify.command": UPGRADE}
    bucket = '[s3]\nbucket = "media"\n'
    archive = '[[retention]]\narchive_threshold = "1d"\narchive_storage_class = "GLACIER"\n'
    assert plan(read(bucket), read(f"{bucket}{archive}")).left == {"retention": UPGRADE}


def test_what_goes_on_without_its_section_goes_on_by_the_settings_it_had(read: Read) -> None:
    """An audit log that was to be kept for ten years would else be cut to the default."""
    on = read('[audit]\nenabled = true\nkeep = "3650d"\n[scrub]\nenabled = true\nrate = "1 MB"\n')
    found = plan(on, read(""))
    assert found.changed == {}
    assert found.left == dict.fromkeys(("audit.enabled", "audit.keep", "scrub.enabled", "scrub.rate"), UPGRADE)
    assert found.settings.config == on.config


SECTIONS_SET = {
    "log": 'level = "debug"', "catalogue": 'flush_interval = "50ms"', "commit": 'settle_max = "7s"\nmax_pending = 77',
    "quota": "max_bytes = 5\nmax_files = 5", "temp": 'max_age = "7d"\nsweep_interval = "7s"',
    "trash": 'retention = "7d"\ncharged = true\nmax_metadata = "7 MiB"',
    "backup": 'every = "7h"\nkeep = 7\ndirectory = "/backups"',
    "sweep": 'orphans_every = "7d"\norphans_mode = "adopt"\nversions_every = "0s"\ntier_every = "7d"',
    "watch": 'enabled = false\nquiet = "7s"\nscan_interval = "7s"', "recordings": 'sweep_interval = "7d"\ngrace = "1d"',
    "events": "enabled = false\nmost = 7000", "audit": 'enabled = true\nreads = true\nkeep = "7d"\ndirectory = "/a"',
    "notify": 'command = "a"\nevents = ["committed"]\nper_minute = 7',
    "serve": 'listen = "127.0.0.1:7777"\nread_threads = 7',
    "gateway": 'socket = "/run/x.sock"\nmode = "0600"', "scrub": 'enabled = true\nrate = "7 MB"\nperiod = "70d"',
    "s3": 'bucket = "media"\nprefix = "a"', "cache": 'max_size = "7 GB"', "upload": 'settle = "7s"',
    "metrics": 'listen = "127.0.0.1:9999"\nusers = 7', "prices": 'currency = "EUR"',
    "stats": 'survey_every = "7d"', "lifecycle": 'abort_multipart = "30d"',
    "deriving": 'jobs = 7\ntimeout = "7s"', "chunks": 'threshold = "7s"\nlength = "70s"',
    "processing_cache": 'enabled = false\nmax_size = "7 MiB"\nexpiry = "7d"',
    "media": 'enabled = false\ntimeout = "7s"\ncpu = "7s"',
    "derive": 'make = "thumbnail"\nat = "7s"',
    "fallback": 'pattern = "users/*/thumbnails/*"\ntarget = "shared/a/*"', "retention": 'retention = "7d"',
    "versions": 'pattern = "users/*/recordings/*/x_v{N}"\nkeep = 2', "route": 'pattern = "users/5/**"\nto = "local"',
}  # fmt: skip
NEEDS = {"route": '[s3]\nbucket = "media"\n'}


def test_every_section_is_among_them() -> None:
    assert SECTIONS_SET.keys() == SECTIONS.keys()


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_goes_comes_is_emptied_and_comes_back(section: str, read: Read) -> None:
    """Whatever a reload makes of that, every change is told, what is left is as it was, and the way back is open."""
    head, needs = f"[[{section}]]" if section in LISTS else f"[{section}]", NEEDS.get(section, "")
    full, without = read(f"{needs}{head}\n{SECTIONS_SET[section]}\n"), read(needs)
    empty = read(f"{section} = []\n{needs}" if section in LISTS else needs if section == "s3" else f"{head}\n{needs}")
    one = read(f"{needs}{head}\n" + SECTIONS_SET[section].partition("\n")[0]) if section not in LISTS else full
    states = [full, without, empty, one]
    for now in states:
        for wanted in states:
            found = plan(now, wanted)
            old, new, then = (settings_of(each.config) for each in (now, wanted, found.settings))
            told = set(found.changed) | set(found.left)
            if "s3" in told:
                told |= {key for key in old.keys() | new.keys() if key.startswith("s3.")}
            assert told >= {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
            for key in found.changed:
                assert (old.get(key), then.get(key)) != (then.get(key), old.get(key))
                assert then.get(key) == new.get(key), key
            assert {key: then.get(key) for key in found.left} == {key: old.get(key) for key in found.left}
            back = plan(found.settings, now)
            assert back.left == {}
            assert back.changed == {key: (values[1], values[0]) for key, values in found.changed.items()}
            if any(key.partition(".")[2] == "enabled" for key in found.left):
                assert found.changed == {}, "what stays as it was goes by what it had"


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def test_s3_comes_and_goes_with_another_process_and_takes_its_routes_along(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = '[[route]]\npattern = "users/5/**"\nto = "s3"\n'
    here = '[s3]\nbucket = "media"\n'
    for text in (f"{here}{route}", here):  # with its own rules, and with those that are the default
        assert plan(read(""), read(text)).left == {"s3": UPGRADE, "route": UPGRADE}
        gone = plan(read(text), read("min_free = 7\n"))
        assert (gone.left, list(gone.changed)) == ({"s3": UPGRADE, "route": UPGRADE}, ["min_free"])
        assert gone.settings.config.route == read(text).config.route
    with monkeypatch.context() as patch:  # where what can change fits no more with what cannot
        patch.setattr(changes, "_has_service", lambda key, config: True)
        with pytest.raises(
            ConfigError, match=r"no S3 tier.*; nothing is changed, for these take more than a reload: s3 \("
        ):
            plan(read(""), read(f"{here}{route}"))
    found = plan(read(here), read(f'{here}prefix = "a"\n{route}'))
    assert (list(found.changed), found.left) == (["route"], {"s3.prefix": UPGRADE})


def test_what_the_gateway_is_told_takes_a_restart_of_it(read: Read) -> None:
    found = plan(read(""), read('[serve]\nlisten = "127.0.0.1:7777"\n'))
    assert (found.changed, found.left) == ({}, {"serve.listen": RESTART})


def test_nothing_has_changed(read: Read) -> None:
    found = plan(read("min_free = 5\n"), read("min_free = 5\n"))
    assert (found.changed, found.left) == ({}, {})
