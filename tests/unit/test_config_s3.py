"""config: the tables of the S3 tier, what holds between them, and every mistake to a message with a remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recfs.config import CacheSection, Config, S3Section, UploadSection, config_for_root, load_config
from recfs.core.routing import DEFAULT_ROUTES, RouteRule
from recfs.errors import ConfigError

Write = Callable[[str], Path]
MIB = 1 << 20
S3 = '[s3]\nbucket = "media"\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_conf(text: str) -> Path:
        path = tmp_path / "recfs.conf"
        path.write_text(f'root = "/s"\n{text}\n', encoding="utf-8")
        return path

    return write_conf


def test_a_store_has_no_s3_tier_by_default() -> None:
    config = config_for_root(Path("/srv/recfs"))
    assert (config.s3, config.route) == (None, ())
    assert config.cache == CacheSection(max_size=20 << 30, fetch_whole_below=8 * MIB, read_ahead_max=64 * MIB)
    assert config.upload == UploadSection(concurrency=8, part_threads=8, settle=5.0, retry_max=300.0)


def test_a_bucket_is_enough(write: Write) -> None:
    config = load_config(write(S3))
    assert config.s3 == S3Section(bucket="media")
    assert config.s3.url == "s3://media/"
    assert (config.s3.part_size, config.s3.threads, config.s3.verify) == (8 * MIB, 8, True)
    assert config.route == DEFAULT_ROUTES == (RouteRule("users/**", "s3"),)


def test_everything_set(write: Write) -> None:
    config = load_config(
        write(
            """
            [s3]
            bucket = "media"
            prefix = "/studio/main/"
            endpoint = "https://s3.example.org:9000/"
            region = "eu-central-1"
            addressing = "Path"
            profile = "recfs"
            credentials_file = "/etc/recfs/credentials"
            ca_bundle = "/etc/ssl/ca.pem"
            storage_class = "STANDARD_IA"
            sse = "aws:kms"
            kms_key = "alias/x"
            tags = { project = "archive" }
            part_size = "16 MiB"
            threads = 32
            read_timeout = "30s"
            checksums = "sha256"
            payload_signing = "on"
            [[route]]
            pattern = "users/*/recordings/**"
            to = "S3"
            min_size = "1 MiB"
            max_size = "1 TiB"
            min_age = "1d"
            max_age = "365d"
            storage_class = "GLACIER_IR"
            keep_local = "7d"
            [[route]]
            pattern = "temp/**"
            to = "local"
            [cache]
                        max_size = "1 TB"
            fetch_whole_below = 0
            read_ahead_max = "1 GiB"
            [upload]
            concurrency = 16
            part_threads = 32
            settle = 0
            retry_max = "1h"
            """
        )
    )
    assert config.s3 is not None
    assert (config.s3.url, config.s3.endpoint) == ("s3://media/studio/main/", "https://s3.example.org:9000")
    assert (config.s3.addressing, config.s3.tags, config.s3.part_size) == ("path", {"project": "archive"}, 16 * MIB)
    year = 365 * 86_400.0
    assert config.route == (
        RouteRule("users/*/recordings/**", "s3", MIB, 1 << 40, 86_400.0, year, "GLACIER_IR", 7 * 86_400.0),
        RouteRule("temp/**", "local"),
    )
    assert (config.cache.max_size, config.cache.fetch_whole_below) == (10**12, 0)
    assert config.upload == UploadSection(concurrency=16, part_threads=32, settle=0.0, retry_max=3600.0)


def test_own_rules_replace_the_default_and_none_keep_all_local(write: Write) -> None:
    rules = '[[route]]\npattern = "shared/**"\nto = "s3"\n'
    assert load_config(write(S3 + rules)).route == (RouteRule("shared/**", "s3"),)
    assert load_config(write("route = []\n" + S3)).route == ()
    assert load_config(write("route = []")).route == ()


def test_it_can_be_built_in_python() -> None:
    rule = RouteRule("users/**", "s3", min_size=1)
    config = Config.model_validate({"root": Path("/s"), "s3": S3Section(bucket="media"), "route": (rule,)})
    assert config.route == (rule,)
    assert Config(root=Path("/s"), s3=S3Section(bucket="media")).route == DEFAULT_ROUTES


ROUTE = '[[route]]\npattern = "users/**"\nto = "s3"\n'
MISTAKES = [
    (
        '[[retention]]\n[[retention]]\narchive_threshold = "1d"\narchive_storage_class = "GLACIER"',
        "retention: rule 2 (users/*/recordings/*) never applies",
    ),
    (
        '[[retention]]\narchive_threshold = "1d"\narchive_storage_class = "GLACIER"',
        'retention[1].archive_storage_class = "GLACIER": there is no S3 tier; add [s3] with bucket',
    ),
    ('[[retention]]\narchive_storage_class = "glacier"\n', "did you mean GLACIER?"),
    (ROUTE, 'route: there are [[route]] rules but no S3 tier; add [s3] with bucket = "...", or remove the rules'),
    ("[s3]", 's3.bucket is missing; add bucket = "..."'),
    ('[s3]\nbucket = "s3://media"', 's3.bucket = "s3://media": not a bucket name; write it alone'),
    ("[s3]\nbucket = 5", "s3.bucket = 5: wrong type; write a text in quotes"),
    (S3 + 'prefix = "a//b"', 's3.prefix = "a//b": a prefix is a path inside the bucket'),
    (S3 + 'endpoint = "s3.example.org"', 's3.endpoint = "s3.example.org": an endpoint is scheme and host only'),
    (S3 + 'endpoint = ""', 's3.endpoint = "": empty; write a text, or leave the key out'),
    (S3 + 'region = ""', 's3.region = "": empty; write a text'),
    (S3 + 'addressing = "dns"', 's3.addressing = "dns": not one of the choices; write "auto", "path" or "virtual"'),
    (S3 + 'credentials_file = "keys"', 's3.credentials_file = "keys": a relative path'),
    (S3 + 'verify = "no"', 's3.verify = "no": wrong type; write true or false, without quotes'),
    (S3 + "verify = 0", "s3.verify = 0: wrong type; write true or false"),
    (S3 + 'verify = false\nca_bundle = "/ca.pem"', "s3: ca_bundle has no effect with verify = false"),
    (S3 + 'kms_key = "k"', 's3: kms_key is used with sse = "aws:kms" only'),
    (S3 + 'sse = "aes"', 's3.sse = "aes": not one of the choices; write "none", "AES256" or "aws:kms"'),
    (
        S3 + 'storage_class = "glacier-ir"',
        "s3.storage_class = \"glacier-ir\": storage class 'glacier-ir': did you mean",
    ),
    (S3 + 'tags = "x"', 's3.tags = "x": wrong type; write { name = "text" }'),
    (S3 + "tags = { a = 1 }", "s3.tags.a = 1: wrong type; write a text in quotes"),
    (S3 + 'tags = { "" = "x" }', "s3.tags: S3 takes up to 10 tags"),
    (S3 + 'part_size = "1 MiB"', 's3.part_size = "1 MiB": too small; write at least 5 MiB'),
    (S3 + 'part_size = "6 GiB"', 's3.part_size = "6 GiB": too large; write at most 5 GiB'),
    (S3 + "part_size = 1", "s3.part_size = 1: too small; write at least 5242880"),
    (S3 + "threads = 0", "s3.threads = 0: too small; write at least 1"),
    (S3 + 'deadline = "0s"', 's3.deadline = "0s": too small; write more than 0s'),
    (S3 + "thread = 1", "s3.thread: unknown key; did you mean threads?"),
    (S3 + 'max_size = "1 GiB"', "s3.max_size: unknown key; max_size belongs below [[route]] or [cache]"),
    ('s3 = "media"', 's3 = "media": wrong type; this is a section: write [s3]'),
    ('[[s3]]\nbucket = "media"', "s3: wrong type; this is a section: write [s3]"),
    ('bucket = "media"', "bucket: unknown key; bucket belongs below [s3]"),
    ('[route]\npattern = "users/**"', "route: wrong type; write [[route]], once per rule, or route = [] for none"),
    ('route = ["x"]', 'route[1] = "x": wrong type; write [[route]] and below it pattern = "..." and to = "..."'),
    (S3 + '[[route]]\nto = "s3"', 'route[1].pattern is missing; add pattern = "..."'),
    (S3 + '[[route]]\npattern = "users/**"', 'route[1].to is missing; add to = "..."'),
    (S3 + ROUTE + "max_sizes = 1", "route[1].max_sizes: unknown key; did you mean max_size?"),
    (S3 + ROUTE + 'min_size = "1 GX"', "route[1].min_size = \"1 GX\": unknown unit of size 'GX'"),
    (S3 + ROUTE + "min_age = -1", "route[1].min_age = -1: a duration cannot be negative"),
    (S3 + ROUTE + 'min_size = "2 MiB"\nmax_size = "1 MiB"', "route[1]: min_size is larger than max_size"),
    (S3 + ROUTE + 'storage_class = "standard"', "route[1]: storage class 'standard': did you mean STANDARD?"),
    (S3 + ROUTE + ROUTE, "route: rule 2 (users/**) never applies: rule 1 (users/**) comes first"),
    (S3 + '[[route]]\npattern = "/users"\nto = "s3"', "route[1]: pattern '/users' is an absolute path"),
    (S3 + '[[route]]\npattern = "users/**"\nto = "aws"', 'route[1].to = "aws": not one of the choices; write "s3" or'),
    (
        S3 + '[[route]]\npattern = "users/**"\nto = "local"\nkeep_local = 1',
        "route[1]: storage_class, keep_local and broken are",
    ),
    ('[cache]\nmax_size = "1 kB"', 'cache.max_size = "1 kB": too small; write at least 1 MiB'),
    ('[cache]\nmax_size = "4 MiB"', "cache: fetch_whole_below (8 MiB) is more than max_size (4 MiB)"),
    ('[cache]\nread_ahead_max = "1 TiB"', "cache: read_ahead_max (1 TiB) is more than max_size (20 GiB); lower it"),
    ("[upload]\nconcurrency = 0", "upload.concurrency = 0: too small; write at least 1"),
    ("[upload]\npart_threads = 1.5", "upload.part_threads = 1.5: wrong type; write a whole number"),
    ('[upload]\nsettle = "2h"', 'upload.settle = "2h": too large; write at most 1h'),
    ("[upload]\nretry_max = 0", "upload.retry_max = 0: too small; write at least 1s"),
    ("[uploads]\nsettle = 1", "uploads: unknown key; did you mean upload?"),
    ('[lifecycle]\nabort_multipart = "36h"', 'lifecycle.abort_multipart = "36h": S3 counts in whole days'),
    ("[lifecycle]\ntransitions = 3", "lifecycle.transitions = 3: wrong type; write a list of tables: [{ prefix"),
    ("[lifecycle]\ntransitions = [3]", "lifecycle.transitions[1] = 3: wrong type; write [{ prefix"),
    (
        '[lifecycle]\ntransitions = [{ storage_class = "GLACIER" }]',
        'lifecycle.transitions[1].after is missing; add after = "..."',
    ),
    (
        '[lifecycle]\ntransitions = [{ after = "1d", storage_class = "GLACIER", afters = 1 }]',
        "lifecycle.transitions[1].afters: unknown key; did you mean after?",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_names_file_key_value_and_remedy(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_elsewhere_says_nothing_of_the_rules(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write("min_free = -1\n" + S3))
    assert "route" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config(write("[s3]\nbucket = 5\n" + ROUTE))
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    "key",
    [
        *("access_key", "secret_key", "aws_access_key_id", "aws_secret_access_key", "accesskey"),
        *("session_token", "password", "credentials", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_credentials_are_refused_and_never_repeated(write: Write, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(f'{S3}{key} = "hunter2"'))
    assert f"s3.{key}: unknown key; recfs.conf holds no credentials" in str(caught.value)
    for word in ("credentials_file", "profile", "$AWS_ACCESS_KEY_ID", "role"):
        assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match=rf"{key}: unknown key; recfs.conf holds no credentials"):
        load_config(write(f'{key} = "hunter2"'))


@pytest.mark.parametrize("endpoint", ["https://AKIA:hunter2@s3.example.org", "https://hunter2@s3", "//a:hunter2@b"])
def test_credentials_in_an_endpoint_are_not_repeated(write: Write, endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"s3\.endpoint = .*scheme and host only") as caught:
        load_config(write(f'{S3}endpoint = "{endpoint}"'))
    assert "hunter2" not in str(caught.value)


def test_the_tables_are_frozen() -> None:
    config = Config(root=Path("/s"), s3=S3Section(bucket="media"))
    for table, key in (("s3", "bucket"), ("cache", "max_size"), ("upload", "settle")):
        section: Any = getattr(config, table)
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, key, 1)
