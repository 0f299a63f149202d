"""config.py: recfs.conf to settings, and every mistake to a message with file, key and remedy."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recfs.config import DEFAULT_FALLBACK, Config, config_for_root, find_config, from_plain, load_config, plain
from recfs.config.load import build
from recfs.core.fallback import FallbackRule
from recfs.core.quota import Limits
from recfs.errors import ConfigError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_conf(text: str) -> Path:
        path = tmp_path / "recfs.conf"
        path.write_text(text, encoding="utf-8")
        return path

    return write_conf


def test_settings_come_back_from_json_as_they_were(write: Write) -> None:
    path = write(
        """
        root = "/srv/recfs"
        operator = 1000
        fallback = []
        [quota]
        max_bytes = "5 GiB"
        [s3]
        bucket = "media"
        tags = { project = "a" }
        [[route]]
        pattern = "users/*/recordings/**"
        to = "s3"
        min_age = "7d"
        keep_local = "90s"
        [lifecycle]
        transitions = [{ prefix = "users/", after = "90d", storage_class = "GLACIER_IR" }]
        """
    )
    for config in (load_config(path), config_for_root(Path("/srv/recfs"))):
        assert from_plain(json.loads(json.dumps(plain(config))), "settings") == config


def test_the_defaults() -> None:
    config = config_for_root(Path("/srv/recfs"))
    assert (config.root, config.mountpoint, config.operator) == (Path("/srv/recfs"), None, None)
    assert (config.min_free, config.allow_other) == (1024**3, "auto")
    assert (config.log.level, config.log.file) == ("info", None)
    assert (config.catalogue.flush_interval, config.catalogue.cached_inodes) == (0.1, 200_000)
    assert (config.commit.hash_threads, config.commit.max_pending, config.commit.settle_max) == (
        2,
        10_000,
        30.0,
    )
    assert config.quota.limits() == Limits()
    assert config.fallback == (DEFAULT_FALLBACK,)
    assert (config.temp.max_age, config.temp.sweep_interval, config.trash.retention) == (86_400.0, 300.0, 0.0)


def test_everything_set(write: Write) -> None:
    config = load_config(
        write(
            """
            root = "/data/recfs"
            mountpoint = "/mnt/recordings"
            min_free = "500MB"
            operator = "root"
            allow_other = false
            fallback = [{ pattern = "users/*/thumbnails/*.png", target = "shared/intros/*" }]
            [log]
            level = "Debug"
            file = "/var/log/recfs.log"
            [catalogue]
            flush_interval = "50ms"
            cached_inodes = 1000
            [commit]
            hash_threads = 8
            max_pending = 5
            settle_max = 0
            [quota]
            max_bytes = "1 TiB"
            max_files = 0
            max_file_size = 4096
            max_monthly_uploads = "unlimited"
            [temp]
            max_age = "1h 30m"
            sweep_interval = 10
            [trash]
            retention = "7d"
            """
        )
    )
    assert (config.root, config.mountpoint) == (Path("/data/recfs"), Path("/mnt/recordings"))
    assert (config.min_free, config.operator, config.allow_other) == (500_000_000, 0, False)
    assert (config.log.level, config.log.file) == ("debug", Path("/var/log/recfs.log"))
    assert (config.catalogue.flush_interval, config.catalogue.cached_inodes) == (0.05, 1000)
    assert (config.commit.hash_threads, config.commit.max_pending, config.commit.settle_max) == (8, 5, 0.0)
    assert config.quota.limits() == Limits(1024**4, 0, 4096, None)
    assert config.fallback == (FallbackRule("users/*/thumbnails/*.png", "shared/intros/*"),)
    assert (config.temp.max_age, config.temp.sweep_interval, config.trash.retention) == (
        5400.0,
        10.0,
        604_800.0,
    )


def test_rules_as_sections_and_none_at_all(write: Write) -> None:
    text = 'root = "/s"\n[[fallback]]\npattern = "users/*/thumbnails/*"\ntarget = "shared/a/*"\n'
    assert load_config(write(text)).fallback == (FallbackRule("users/*/thumbnails/*", "shared/a/*"),)
    assert load_config(write('root = "/s"\nfallback = []')).fallback == ()


@pytest.mark.parametrize(("text", "uid"), [("0", 0), ('"0"', 0), ("1234", 1234), ('"1234"', 1234), ('"root"', 0)])
def test_the_operator_by_name_or_uid(write: Write, text: str, uid: int) -> None:
    assert load_config(write(f'root = "/s"\noperator = {text}')).operator == uid


def test_it_is_frozen() -> None:
    config = config_for_root(Path("/s"))
    with pytest.raises(pydantic.ValidationError):
        config.min_free = 0
    with pytest.raises(pydantic.ValidationError):
        config.commit.hash_threads = 9


def test_it_can_be_built_in_python() -> None:
    rule = FallbackRule("users/*/thumbnails/*", "shared/a/*")
    config = Config.model_validate({"root": Path("/s"), "fallback": (rule,), "temp": {"max_age": 0.5}})
    assert (config.fallback, config.temp.max_age) == ((rule,), 0.5)


MISTAKES = [
    ('[audit]\ndirectory = "/s/logs"', 'audit.directory = "/s/logs": it lies in the store or its mount'),
    ('[notify]\nevents = "corrupt"', 'wrong type; write a list of texts: ["corrupt", "quota_reached"]'),
    ('[notify]\nevents = ["exploded"]', "'exploded' is no kind of events; there are adopted, broken"),
    ('[events]\nenabled = false\n[notify]\ncommand = "true"', "notify.command: it is run for events"),
    ("[events]\nmost = 10", "events.most"),
    ("[commit]\nhash_thread = 2", "commit.hash_thread: unknown key; did you mean hash_threads?"),
    ("colour = 1", "colour: unknown key; known here: root, mountpoint, min_free"),
    ("[quotas]\nmax_bytes = 1", "quotas: unknown key; did you mean quota?"),
    (
        "retention = 1",
        "retention = 1: wrong type; write [[retention]], once per rule, or retention = [] for none; the key retention"
        " belongs below [trash] or [[retention]]",
    ),
    ("[log]\nmin_free = 1", "log.min_free: unknown key; min_free belongs above the first [section]"),
    ('min_free = "1 GiX"', "min_free = \"1 GiX\": unknown unit of size 'GiX' in '1 GiX'; use B, kB, MB"),
    ("min_free = -1", "min_free = -1: a size cannot be negative"),
    ("min_free = 1.5", "min_free = 1.5: a size is a text such as"),
    ("min_free = []", "min_free: a size is a text such as"),
    ('[temp]\nmax_age = "1 moon"', "temp.max_age = \"1 moon\": unknown unit of time 'moon'"),
    ("[temp]\nmax_age = true", "temp.max_age = true: a duration is a text such as"),
    ("[temp]\nmax_age = nan", "temp.max_age = nan: a duration cannot be"),
    ("[temp]\nmax_age = 2026-01-01", "temp.max_age = 2026-01-01: a duration is"),
    ("[temp]\nmax_age = 0", "temp.max_age = 0: too small; write more than 0s"),
    ("[temp]\nsweep_interval = 0", "temp.sweep_interval = 0: too small; write at least 100ms"),
    ('[temp]\nsweep_interval = "2d"', 'temp.sweep_interval = "2d": too large; write at most 1d'),
    ('[catalogue]\nflush_interval = "0s"', 'catalogue.flush_interval = "0s": too small; write more than 0s'),
    ('[catalogue]\nflush_interval = "2m"', 'catalogue.flush_interval = "2m": too large; write at most 1m'),
    ("[catalogue]\ncached_inodes = 0", "catalogue.cached_inodes = 0: too small; write at least 1"),
    ('[catalogue]\ncached_inodes = "9"', 'catalogue.cached_inodes = "9": wrong type; write a whole number'),
    ("[catalogue]\ncached_inodes = true", "catalogue.cached_inodes = true: wrong type; write a whole number"),
    ("[catalogue]\ncached_inodes = 9.0", "catalogue.cached_inodes = 9.0: wrong type; write a whole number"),
    ("[commit]\nhash_threads = 0", "commit.hash_threads = 0: too small; write at least 1"),
    ("[commit]\nhash_threads = 1000", "commit.hash_threads = 1000: too large; write at most 256"),
    ("[commit]\nmax_pending = 0", "commit.max_pending = 0: too small; write at least 1"),
    ("[commit]\nsettle_max = -1", "commit.settle_max = -1: a duration cannot be negative"),
    ('[commit]\nsettle_max = "2h"', 'commit.settle_max = "2h": too large; write at most 1h'),
    ('[trash]\nretention = "-1s"', 'trash.retention = "-1s": not a duration'),
    (
        "[quota]\nmax_bytes = -1",
        'quota.max_bytes = -1: a size cannot be negative: -1; "unlimited" for no limit',
    ),
    ('[quota]\nmax_files = "9"', 'quota.max_files = "9": a whole number of at least 0, without quotes'),
    ("[quota]\nmax_files = -1", "quota.max_files = -1: a whole number of at least 0"),
    ('[recordings]\nallowed_extensions = ["mp4"]', "an extension is a dot and letters or digits, such as"),
    ('[recordings]\nallowed_extensions = [".mp4", ".a/b"]', "'.a/b': an extension is a dot and letters or digits"),
    ("[recordings]\nallowed_extensions = [5]", "recordings.allowed_extensions"),
    ('[recordings]\nallowed_extensions = ".mp4"', "recordings.allowed_extensions"),
    ("[quota]\nmax_monthly_uploads = true", "quota.max_monthly_uploads = true: a whole number of at least 0"),
    ('[quota]\nmax_file_size = "none"', 'quota.max_file_size = "none": not a size'),
    ('mountpoint = "mnt"', 'mountpoint = "mnt": a relative path depends on where recfs is started'),
    ('mountpoint = ""', 'mountpoint = "": a path is a text in quotes'),
    ("mountpoint = 5", "mountpoint = 5: a path is a text in quotes"),
    ('mountpoint = "/a\\u0000b"', "a path cannot hold a NUL"),
    ('mountpoint = "/s/mnt"', 'mountpoint = "/s/mnt": it and root = "/s" lie inside one another'),
    ('mountpoint = "/s"', "lie inside one another; keep them apart"),
    ('mountpoint = "/"', "lie inside one another; keep them apart"),
    ('operator = "no-such-user"', 'operator = "no-such-user": no user of this name on this machine'),
    ('operator = "a\\u0000b"', "no user of this name on this machine"),
    ("operator = -1", "operator = -1: a uid lies between 0 and 4294967294"),
    ("operator = 4294967295", "operator = 4294967295: a uid lies between"),
    ('operator = "' + "0" * 25 + '99999999999"', "a uid lies between"),
    ("operator = 1.5", "operator = 1.5: a user is a name in quotes"),
    ("operator = true", "operator = true: a user is a name in quotes"),
    ('allow_other = "yes"', 'allow_other = "yes": not one of the choices; write "auto", true or false'),
    ("allow_other = 1", "allow_other = 1: not one of the choices"),
    ('existing = "yes"', 'existing = "yes": wrong type; write true or false, without quotes'),
    ('existing = "maybe"', 'existing = "maybe": wrong type; write true or false, without quotes'),
    ("existing = 1", "existing = 1: wrong type; write true or false"),
    ('[log]\nlevel = "LOUD"', 'log.level = "LOUD": not one of the choices; write "debug", "info"'),
    ("[log]\nlevel = 3", "log.level = 3: not one of the choices"),
    ('[log]\nfile = "recfs.log"', 'log.file = "recfs.log": a relative path'),
    ('log = "info"', 'log = "info": wrong type; this is a section: write [log]'),
    ("[[log]]", "log: wrong type; this is a section: write [log]"),
    ('fallback = "x"', 'fallback = "x": wrong type; write [[fallback]], once per rule'),
    ('fallback = ["x"]', 'fallback[1] = "x": wrong type; write [[fallback]] and below it pattern'),
    ("[[fallback]]\npattern = 5\ntarget = 'shared/*'", "fallback[1].pattern = 5: wrong type; write a text"),
    ("[[fallback]]\ntarget = 'shared/*'", 'fallback[1].pattern is missing; add pattern = "..."'),
    (
        "[[fallback]]\npattern = 'users/*/thumbnails/*'\ntarget = 'shared/*'\ntargets = 1",
        "fallback[1].targets: unknown key; did you mean target?",
    ),
    (
        "[[fallback]]\npattern = 'users/*/thumbnails/*'\ntarget = 'users/5/*'",
        "fallback[1]: target 'users/5/*' is not below shared/",
    ),
    (
        "[[fallback]]\npattern = 'users/*/thumbnails/*'\ntarget = 'shared/*'\n"
        "[[fallback]]\npattern = 'users/*/thumbnails/*'\ntarget = 'shared/*'",
        "fallback: pattern 'users/*/thumbnails/*' never applies",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_names_file_key_value_and_remedy(write: Write, text: str, message: str) -> None:
    path = write(f'root = "/s"\n{text}\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_mistake_in_root(write: Write) -> None:
    for text, message in [
        ('root = "srv"', 'root = "srv": a relative path'),
        ('root = "~/recfs"', "a relative path"),
        ("root = 5", "root = 5: a path is a text in quotes"),
        ("[root]", "root: a path is a text in quotes"),
        ("", 'root is missing; add root = "..."; or give --root DIR'),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(write(text))
        assert message in str(caught.value)


def test_all_mistakes_are_told_together(write: Write) -> None:
    path = write('root = "x"\nmin_free = -1\n[commit]\nhash_thread = 2\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{path}: ") for line in lines)


def test_a_long_value_is_cut(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(f'root = "{"x" * 5000}"'))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'root = "/s"\nmin_free = 1 GiB\n', r"not TOML: .*line 2.*texts in quotes"),
        (b'root = "/s\n', r"not TOML: .*line 1"),
        (b'root = "/s"\nroot = "/t"\n', "not TOML: .*line 2.*may be there once"),
        (b'root = "/s"\n[gateway]\n[gateway]\n', "not TOML: .*line 3.*may be there once: put them together"),
        (b'root = "/s"\n# caf\xe9\n', "line 2 is not UTF-8"),
        (b"\xef\xbb\xbf" * 2 + b'root = "/s"\n', "not TOML: .*line 1"),  # one is what editors of Windows write
        ('root = "/s"\n'.encode("utf-16"), "line 1 is not UTF-8"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"#" * (1024 * 1024 + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_not_toml(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "recfs.conf"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"absent\.conf: no such config file; .*--root DIR"):
        load_config(tmp_path / "absent.conf")
    with pytest.raises(ConfigError, match="is a directory; name the config file itself"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load_config(Path("/dev/null/recfs.conf"))
    with pytest.raises(ConfigError, match=r"cannot be read: .*null"):
        load_config(Path("a\0b"))

    # root reads files of any mode, so the refusal itself has to be made
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match=rf"closed\.conf: uid {os.geteuid()} may not read it; allow"):
        load_config(tmp_path / "closed.conf")


@given(text=st.text(max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_gives_anything_but_a_config_or_a_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recfs.conf"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    with pytest.raises(ConfigError):
        load_config(path)


toml_values = st.sampled_from(
    [
        *("1", "-1", "0", "1.5", "inf", "nan", "true", "9" * 30, "2026-01-01", "12:00:00"),
        *('""', '"x"', '"1 GiB"', '"5m"', '"/abs"', '"\\u0000"', '"' + "9" * 30 + '"'),
        *("[]", "[1]", "[[[]]]", "[{}]", "{}", "{a = 1}"),
    ]
)
keys = st.builds(
    "{}{}".format,
    st.sampled_from(
        [
            *("", "log.", "catalogue.", "commit.", "quota.", "temp.", "trash.", "fallback."),
            *("s3.", "s3.tags.", "route.", "cache.", "upload."),
        ]
    ),
    st.sampled_from(
        [
            *("root", "mountpoint", "min_free", "operator", "allow_other", "log", "level", "file", "quota"),
            *("fallback", "flush_interval", "cached_inodes", "max_bytes", "max_files", "max_age"),
            *("retention", "x", "pattern", "s3", "route", "bucket", "tags", "dir", "max_size", "endpoint", "settle"),
        ]
    ),
)


@given(lines=st.dictionaries(keys, toml_values, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_settings_give_a_traceback(tmp_path: Path, lines: dict[str, str]) -> None:
    path = tmp_path / "recfs.conf"
    path.write_text("\n".join(f"{key} = {value}" for key, value in lines.items()), encoding="utf-8")
    message = ""
    try:
        load_config(path, root=Path("/s"))
    except ConfigError as error:
        message = str(error)
    assert all(line.startswith(f"{path}: ") for line in message.splitlines())


class TestFindConfig:
    @pytest.fixture
    def conf(self, write: Write) -> Path:
        return write('root = "/from-file"\nmin_free = 7')

    def test_the_option_goes_first(self, conf: Path) -> None:
        assert find_config(conf, None, {"RECFS_CONFIG": "/absent"}).root == Path("/from-file")

    def test_root_replaces_the_root_of_the_file(self, conf: Path) -> None:
        config = find_config(conf, Path("/other"), {})
        assert (config.root, config.min_free) == (Path("/other"), 7)

    def test_root_stands_in_for_a_file_without_one(self, write: Write) -> None:
        assert find_config(write("min_free = 7"), Path("/other"), {}).root == Path("/other")

    def test_root_alone_reads_no_file(self, conf: Path) -> None:
        config = find_config(None, Path("/other"), {"RECFS_CONFIG": str(conf)}, system_config=conf)
        assert config == config_for_root(Path("/other"))

    def test_a_relative_root_is_taken_from_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert find_config(None, Path("store"), {}).root == tmp_path / "store"
        assert find_config(None, Path("."), {}).root == tmp_path

    def test_the_environment_then_the_system(self, conf: Path, tmp_path: Path) -> None:
        absent = tmp_path / "absent"
        assert find_config(None, None, {"RECFS_CONFIG": str(conf)}, system_config=absent).min_free == 7
        assert find_config(None, None, {"RECFS_CONFIG": ""}, system_config=conf).min_free == 7

    def test_a_wrong_environment_is_named(self, tmp_path: Path, conf: Path) -> None:
        env = {"RECFS_CONFIG": str(tmp_path / "gone.conf")}
        with pytest.raises(ConfigError, match=r"gone\.conf: no such .* \(named by \$RECFS_CONFIG\)"):
            find_config(None, None, env, system_config=conf)

    def test_nothing_names_a_store(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no store named.*--root DIR or --config FILE.*\$RECFS_CONFIG"):
            find_config(None, None, {}, system_config=tmp_path / "absent")

    def test_a_dangling_link_as_system_file_is_an_error(self, tmp_path: Path) -> None:
        link = tmp_path / "recfs.conf"
        link.symlink_to(tmp_path / "gone")
        with pytest.raises(ConfigError, match="no such config file"):
            find_config(None, None, {}, system_config=link)


def test_a_kind_of_events_that_there_is_not_is_told_in_one_line() -> None:
    with pytest.raises(ConfigError) as told:
        build({"root": "/srv/recfs", "notify": {"events": ["comitted"]}}, "recfs.conf")
    assert str(told.value).startswith("recfs.conf: notify.events: 'comitted' is no kind of events; there are adopted,")
    assert len(str(told.value).splitlines()) == 1


# --- [gateway] -------------------------------------------------------------------------------------------------------


def test_the_second_socket(write: Write) -> None:
    text = '[gateway]\nsocket = "/run/g.sock"\ngroup = "root"\nmode = "0600"\nmethods = ["status", "presign"]\n'
    found = load_config(write(f'root = "/s"\n{text}')).gateway
    assert (found.socket, found.group, found.mode) == (Path("/run/g.sock"), 0, "0600")
    assert found.methods == ("status", "presign")
    assert load_config(write('root = "/s"\n[gateway]\nmode = 0o666')).gateway.mode == "0666"
    default = config_for_root(Path("/s")).gateway
    assert (default.socket, default.mode) == (None, "0660")
    config = load_config(write(f'root = "/s"\n{text}'))
    assert from_plain(plain(config), "settings") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('methods = ["statsu"]', "'statsu' is no method; there are"),
        ('methods = ["stop"]', "'stop' is asked for on the store's own socket alone"),
        ('methods = ["status", "upgrade"]', "'upgrade' is asked for on the store's own socket alone"),
        ("methods = []", "an empty list offers nothing"),
        ('mode = "0770"', '"0660" for a group'),
        ('mode = "0060"', '"0660" for a group'),
        ('mode = "rw"', "permission bits in octal"),
        ("mode = true", "permission bits in octal"),
        ('group = "no-such-group"', "no group of this name on this machine"),
        ("group = -1", "a gid lies between"),
        ('socket = "gateway.sock"', "write it in full, from /"),
        ('socket = "/"', "the path of a socket"),
        (f'socket = "/run/{"x" * 250}"', "the path of a socket"),
        ('socket = "/s/gateway.sock"', "it lies in the store or its mount"),
        ('socket = "/m/gateway.sock"', "it lies in the store or its mount"),
        ("max_connections = 0", "max_connections"),
    ],
)
def test_what_a_gateway_cannot_offer(write: Write, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(write(f'root = "/s"\nmountpoint = "/m"\n[gateway]\n{text}'))
