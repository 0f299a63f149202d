"""Where settings come from: the command line before the environment before the file before the defaults."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recfs.config import SECTIONS, Config, Options, assignment, check_file, find_config, find_settings, load_config
from recfs.config.environment import known, settings_in
from recfs.config.lines import lines_of
from recfs.errors import ConfigError

Write = Callable[[str], Path]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_conf(text: str) -> Path:
        path = tmp_path / "recfs.conf"
        path.write_text(text, encoding="utf-8")
        return path

    return write_conf


def test_each_source_goes_before_the_next(write: Write) -> None:
    conf = write('root = "/file"\nmin_free = 1\n[quota]\nmax_bytes = 1\nmax_files = 1\nmax_file_size = 1\n')
    env = {"RECFS_ROOT": "/env", "RECFS_QUOTA__MAX_FILES": "2", "RECFS_QUOTA__MAX_FILE_SIZE": "2 kB"}
    settings = find_settings(
        conf, Path("/option"), env, options=Options({("quota", "max_file_size"): ("--set", "3 kB")})
    )
    config = settings.config
    assert config.root == Path("/option")
    assert (config.quota.max_bytes, config.quota.max_files, config.quota.max_file_size) == (1, 2, 3000)
    told = {
        key: settings.origin(key)
        for key in ("root", "min_free", "quota.max_bytes", "quota.max_files", "quota.max_file_size", "log.level")
    }
    assert told == {
        "root": "--root",
        "min_free": f"{conf}, line 2",
        "quota.max_bytes": f"{conf}, line 4",
        "quota.max_files": "$RECFS_QUOTA__MAX_FILES",
        "quota.max_file_size": "--set",
        "log.level": "default",
    }


def test_the_environment_alone_names_a_store(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    config = find_config(None, None, {"RECFS_ROOT": "/srv/env", "RECFS_LOG__LEVEL": "Debug"}, system_config=absent)
    assert (config.root, config.log.level) == (Path("/srv/env"), "debug")
    # --root alone reads no file; variables count all the same.
    config = find_config(None, Path("/other"), {"RECFS_ROOT": "/srv/env", "RECFS_MIN_FREE": "7"}, system_config=absent)
    assert (config.root, config.min_free) == (Path("/other"), 7)


VALUES = [
    ("RECFS_ALLOW_OTHER", "true", True),
    ("RECFS_ALLOW_OTHER", "auto", "auto"),
    ("RECFS_QUOTA__MAX_BYTES", "unlimited", None),
    ("RECFS_QUOTA__MAX_BYTES", "5 GiB", 5 << 30),
    ("RECFS_MIN_FREE", "4096", 4096),
    ("RECFS_SCRUB__WINDOW", "22:00-06:00", "22:00-06:00"),
    ("RECFS_NOTIFY__COMMAND", 'mail -s "recfs: trouble" root', 'mail -s "recfs: trouble" root'),
    ("RECFS_NOTIFY__COMMAND", "5", "5"),
    ("RECFS_NOTIFY__EVENTS", '["corrupt"]', ("corrupt",)),
    ("RECFS_PRICES__PER_GIB_MONTH", "{ local = 0.05 }", {"local": 0.05}),
    ("RECFS_S3__BUCKET", "12345", "12345"),
    ("RECFS_S3__PREFIX", "2026-11-29", "2026-11-29/"),
]


@pytest.mark.parametrize(("name", "text", "value"), VALUES)
def test_a_variable_is_written_as_it_is_meant(name: str, text: str, value: object) -> None:
    bucket = {} if name == "RECFS_S3__BUCKET" else {"RECFS_S3__BUCKET": "media"}
    config = find_config(None, Path("/s"), {name: text} | bucket)
    found: object = config
    for part in known()[name]:
        found = getattr(found, str(part))
    assert found == value


def test_rules_are_a_list_of_tables() -> None:
    env = {"RECFS_VERSIONS": '[{ pattern = "users/*/recordings/*/topics_v{N}", keep = 3 }]', "RECFS_FALLBACK": "[]"}
    settings = find_settings(None, Path("/s"), env)
    assert (settings.config.versions[0].keep, settings.config.fallback) == (3, ())
    assert settings.origin("versions[1].keep") == "$RECFS_VERSIONS"


def test_every_setting_has_a_variable_and_nothing_else_has() -> None:
    lists = ("derive", "fallback", "retention", "route", "versions")
    keys = {(name,) for name in Config.model_fields if name not in SECTIONS or name in lists}
    keys |= {(name, key) for name, each in SECTIONS.items() if name not in lists for key in each.model_fields}
    assert set(known().values()) == keys
    assert known()["RECFS_QUOTA__MAX_FILE_SIZE"] == ("quota", "max_file_size")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("RECFS_QUOTA__MAX_BYTE", r"did you mean \$RECFS_QUOTA__MAX_BYTES\?"),
        ("RECFS_QUOTA_MAX_BYTES", r"did you mean \$RECFS_QUOTA__MAX_BYTES\?"),
        ("RECFS_ROOTS", r"did you mean \$RECFS_ROOT\?"),
        ("RECFS_S3", "a section and no setting; name one of its keys, such as RECFS_S3__BUCKET"),
        ("RECFS_ROUTE__PATTERN", "write all as a list into RECFS_ROUTE"),
        ("RECFS_S3__SECRET_KEY", "recfs.conf holds no credentials"),
        ("RECFS_XYZZY", "`recfs config show` has all settings"),
    ],
)
def test_an_unknown_variable_is_refused_and_its_value_not_shown(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\${name} in the environment: .*{told}") as caught:
        find_config(None, Path("/s"), {name: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_an_empty_variable_and_those_of_tests_and_scripts_are_no_settings() -> None:
    env = dict.fromkeys(("RECFS_ROOT", "RECFS_QUOTA__MAX_BYTES", "RECFS_NOBODY"), "")
    env |= dict.fromkeys(("RECFS_TEST_RGW", "RECFS_CONFIG", "RECFS_TAKE_OVER", "RECFS_SEAWEEDFS_DIR"), "1")
    assert settings_in(env) == {}


def test_every_variable_that_the_sources_know_means_something() -> None:
    """A name that tests and scripts set must keep no daemon from starting."""
    asked = re.compile(r"(?:environ(?:\.get|\.pop)?[\[(]|getenv\()\s*\"(RECFS_[A-Z0-9_]+)\"|^export (RECFS_[A-Z0-9_]+)")
    shell = re.compile(r"\$\{(RECFS_[A-Z0-9_]+)")
    names: set[str] = set()
    for folder in ("recfs", "tests", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and (path.suffix == ".py" or folder == "scripts") and "__pycache__" not in path.parts:
                text = path.read_text("utf-8", "replace")
                names |= {name for pair in asked.findall(text) for name in pair if name} | set(shell.findall(text))
    assert {"RECFS_SEAWEEDFS_DIR", "RECFS_TEST_INTERNAL_ERROR"} <= names
    settings_in(dict.fromkeys(names - set(known()), "1"))


def test_a_mistake_names_variable_option_or_line(write: Write) -> None:
    conf = write('root = "/s"\n\n[temp]\nmax_age = "x"\n[[versions]]\npattern = "a"\n')
    env = {"RECFS_MIN_FREE": "x"}
    options = Options({("log", "level"): ("--set", "loud")})
    with pytest.raises(ConfigError) as caught:
        find_config(conf, None, env)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith('$RECFS_MIN_FREE: min_free = "x": ')
    assert lines[1].startswith(f'{conf}: line 4: temp.max_age = "x": ')
    assert lines[2].startswith(f"{conf}: line 5: versions[1].keep is missing")
    with pytest.raises(ConfigError, match=r'^--set: log.level = "loud": not one of the choices'):
        find_settings(None, Path("/s"), {}, options=options)


def test_a_mistake_of_several_settings_has_the_line_of_the_first(write: Write) -> None:
    conf = write('root = "/s"\n[backup]\nevery = "1h"\nto_bucket = true\n')
    with pytest.raises(ConfigError, match=rf"^{conf}: line 4: backup.to_bucket = true: there is no S3 tier"):
        load_config(conf)


def test_what_is_assigned_on_the_command_line() -> None:
    assert assignment("quota.max_bytes=5 GiB") == (("quota", "max_bytes"), "5 GiB")
    assert assignment("watch.enabled = false") == (("watch", "enabled"), False)
    with pytest.raises(ConfigError, match=r"--set quota.max_byte: no setting; did you mean quota.max_bytes\?"):
        assignment("quota.max_byte=5")
    with pytest.raises(ConfigError, match="--set min_free: write KEY=VALUE"):
        assignment("min_free")


def test_the_file_is_read_once_more(write: Write) -> None:
    settings = find_settings(write('root = "/s"\nmin_free = 1\n'), None, {"RECFS_LOG__LEVEL": "debug"})
    write('root = "/s"\nmin_free = 2\n')
    assert settings.again is not None
    later = settings.again()
    assert (later.config.min_free, later.config.log.level, later.again is not None) == (2, "debug", True)


def test_lines_of_every_kind_of_setting() -> None:
    text = """# a comment
root = "/s"
fallback = [
  { pattern = "a]", target = "b" },   # a list of several lines
  { pattern = "c", target = "d" },
]

[s3]
tags = { a = "b" }
prefix = \"\"\"
[not.a.table]
key = 1
\"\"\"
[[route]]
pattern = "x"

[[route]]
to = 'local'
[prices.per_gib_month]
local = 1.0
"""
    found = lines_of(text)
    wanted = {
        ("root",): 2,
        ("fallback",): 3,
        ("fallback", 1, "target"): 3,
        ("s3",): 8,
        ("s3", "tags", "a"): 9,
        ("s3", "prefix"): 10,
        ("route", 0): 14,
        ("route", 0, "pattern"): 15,
        ("route", 1): 17,
        ("route", 1, "to"): 18,
        ("prices", "per_gib_month", "local"): 20,
    }
    assert {each: found.get(each) for each in wanted} == wanted
    assert ("not", "a", "table") not in found


def test_the_lines_of_the_example() -> None:
    text = (ROOT / "recfs.conf.example").read_text("utf-8")
    lines = text.split("\n")
    found = {key: line for key, line in lines_of(text).items() if isinstance(key[-1], str) and len(key) > 1}
    assert len(found) > 20
    assert [key for key, line in found.items() if not lines[line - 1].startswith(f"{key[-1]} =")] == []


def test_a_variable_in_another_case_is_no_setting_and_is_not_passed_over(tmp_path: Path) -> None:
    """Also one that begins in small letters, if it is a setting but for that; others are somebody else's."""
    conf = tmp_path / "recfs.conf"
    conf.write_text('root = "/srv/a"')
    for name, meant in (
        ("RECFS_root", "RECFS_ROOT"), ("recfs_root", "RECFS_ROOT"), ("Recfs_Min_Free", "RECFS_MIN_FREE"),
        ("recfs_config", "RECFS_CONFIG"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"^\${name} in the environment: .*did you mean \${meant}\?$"):
            find_config(conf, None, {name: "1"})
    assert find_config(conf, None, {"recfs_home": "x", "recfs": "y"}).root == Path("/srv/a")


def test_a_file_as_editors_of_windows_save_it(tmp_path: Path) -> None:
    conf = tmp_path / "recfs.conf"
    text = (
        'root = "/srv/a"\n[quota]\nmax_files = 5\n[[fallback]]\npattern = "users/*/thumbnails/*"\ntarget = "shared/*"\n'
    )
    conf.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    settings = find_settings(conf, None, {})
    assert (settings.config.root, settings.config.quota.max_files) == (Path("/srv/a"), 5)
    assert settings.origins["quota.max_files"] == f"{conf}, line 3"
    conf.write_bytes(b"\xef\xbb\xbf" + text.replace("= 5", "= x").replace("\n", "\r\n").encode())
    with pytest.raises(ConfigError, match="line 3"):
        find_settings(conf, None, {})


def test_a_file_is_checked_with_the_environment_and_by_itself(tmp_path: Path) -> None:
    """As the daemon would have it; what a variable hides is told all the same."""
    conf = tmp_path / "recfs.conf"
    conf.write_text('root = "/srv/a"\nmin_free = "5 GB"')
    assert check_file(conf, None, {"RECFS_MIN_FREE": "7"}).config.min_free == 7
    with pytest.raises(ConfigError, match=r"^\$RECFS_MIN_FREE: min_free"):
        check_file(conf, None, {"RECFS_MIN_FREE": "much"})
    conf.write_text('root = "/srv/a"\nmin_free = "much"')
    with pytest.raises(ConfigError, match=r"recfs\.conf: line 2: min_free"):
        check_file(conf, None, {"RECFS_MIN_FREE": "7"})
    conf.write_text("min_free = 7")
    assert check_file(conf, None, {"RECFS_ROOT": "/srv/b"}).config.root == Path("/srv/b")
    assert check_file(conf, Path("/srv/c"), {"RECFS_ROOT": "/srv/b"}).config.root == Path("/srv/c")
    with pytest.raises(ConfigError, match="root is missing"):
        check_file(conf, None, {})


def test_what_is_missing_is_asked_for_as_it_is_written(tmp_path: Path) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text('root = "/srv/a"\n[[versions]]\n')
    with pytest.raises(ConfigError) as error:
        find_settings(conf, None, {})
    assert 'pattern = "..."' in str(error.value)
    assert "keep is missing; add keep = N, a whole number without quotes" in str(error.value)
    conf.write_text('root = "/srv/a"\nversions = [5]')
    with pytest.raises(ConfigError, match=r'pattern = "\.\.\." and keep = N, a whole number without quotes$'):
        find_settings(conf, None, {})
