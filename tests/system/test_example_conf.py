"""recfs.conf.example and the `Config` model say the same."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from recfs.config import SECTIONS, Config, load_config

EXAMPLE = Path(__file__).parents[2] / "recfs.conf.example"
LINES = EXAMPLE.read_text(encoding="utf-8").splitlines()
# A comment in prose has a space after the #, a setting that is switched off has none.
SWITCHED_OFF = re.compile(r"^#(\w+ *=.*|\[+\w+\]+)$")
KEY = re.compile(r"#?(\w+) *=")
HEADER = re.compile(r"#?\[+(\w+)\]+$")
DEFAULT = re.compile(r"# Default: (.*)$")

MODEL_KEYS = {name for name in Config.model_fields if name not in SECTIONS} | {
    f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields
}


def keys_in_example() -> list[tuple[str, str | None, list[str]]]:
    """Give (dotted key, text after "# Default:", comment lines) for every setting, switched off or not."""
    found: list[tuple[str, str | None, list[str]]] = []
    section = ""
    comment: list[str] = []
    default = None
    for line in LINES:
        if header := HEADER.match(line):
            section = header[1] + "."
        elif key := KEY.match(line):
            found.append((section + key[1], default, comment))
        elif line.startswith("#"):
            comment = [*comment, line]
            if told := DEFAULT.match(line):
                default = told[1]
            continue
        comment, default = [], None
    return found


def everything_on() -> dict[str, Any]:
    return tomllib.loads("\n".join(SWITCHED_OFF.sub(r"\1", line) for line in LINES))


# The least a table has to say.
REQUIRED: dict[str, dict[str, Any]] = {
    "": {"root": "/srv/recfs"},
    "fallback": {"pattern": "users/*/thumbnails/*", "target": "shared/*"},
    "versions": {"pattern": "users/*/recordings/*/topics_v{N}", "keep": 3},
    "derive": {"make": "thumbnail"},
    "s3": {"bucket": "media"},
    "route": {"pattern": "users/**", "to": "s3"},
}


def test_every_key_of_the_model_is_in_the_example_once_and_no_other() -> None:
    assert sorted(key for key, _default, _comment in keys_in_example()) == sorted(MODEL_KEYS)


def test_the_sections_of_the_model_are_all_known() -> None:
    sections = {HEADER.match(line)[1] for line in LINES if HEADER.match(line)}  # type: ignore[index]
    assert sections == set(SECTIONS)
    assert set(SECTIONS) <= set(Config.model_fields)


def test_the_example_loads_as_it_is_and_is_the_default() -> None:
    assert load_config(EXAMPLE) == Config(root=Path("/srv/recfs"))


def test_the_example_loads_with_every_setting_switched_on(tmp_path: Path) -> None:
    text = "\n".join(SWITCHED_OFF.sub(r"\1", line) for line in LINES)
    path = tmp_path / "recfs.conf"
    path.write_text(text, encoding="utf-8")
    config = load_config(path)
    data = everything_on()
    for section, model in SECTIONS.items():
        tables = data[section] if isinstance(data[section], list) else [data[section]]
        assert [set(table) for table in tables] == [set(model.model_fields)], section
    assert config.mountpoint == Path(data["mountpoint"])
    assert config.quota.max_bytes == 500 * 1024**3
    assert None not in (config.operator, config.log.file, config.quota.limits().max_monthly_uploads)
    assert config.s3 is not None
    assert (config.s3.bucket, config.s3.prefix) == (data["s3"]["bucket"], data["s3"]["prefix"] + "/")
    assert [(rule.pattern, rule.keep_local_s) for rule in config.route] == [("users/*/recordings/**", 7 * 86_400.0)]


def test_the_example_says_that_keys_to_the_bucket_go_elsewhere() -> None:
    header = LINES.index("#[s3]")
    told = " ".join(line.strip("# ") for line in LINES[header - 10 : header])
    for word in ("No access keys here", "credentials_file", "profile", "$AWS_SECRET_ACCESS_KEY", "role of the machine"):
        assert word in told


@pytest.mark.parametrize(("key", "told"), [(key, told) for key, told, _comment in keys_in_example()])
def test_the_default_the_example_tells_is_the_models(key: str, told: str | None) -> None:
    assert told is not None, f"{key} has no line '# Default: ...' above it"
    if told.startswith("none;"):
        section, _, name = key.rpartition(".")
        field = (SECTIONS[section] if section else Config).model_fields[name]
        assert field.is_required() or field.get_default() is None
        return
    section, _, name = key.rpartition(".")
    model = SECTIONS[section] if section else Config
    required = REQUIRED.get(section, {})
    given = tomllib.loads(f"value = {told}")["value"]
    assert getattr(model.model_validate({**required, name: given}), name) == getattr(
        model.model_validate(required), name
    )


@pytest.mark.parametrize(("table", "others"), [("fallback", {}), ("route", {"s3": {"bucket": "media"}})])
def test_the_rules_the_example_tells_as_default_are_the_models(table: str, others: dict[str, Any]) -> None:
    header = next(number for number, line in enumerate(LINES) if line.lstrip("#") == f"[[{table}]]")
    told = DEFAULT.match(LINES[header - 1])
    assert told is not None
    rules = tomllib.loads(f"{table} = {told[1]}")
    default = Config.model_validate(REQUIRED[""] | others)
    assert getattr(Config.model_validate(REQUIRED[""] | others | rules), table) == getattr(default, table) != ()


@pytest.mark.parametrize("key", sorted(MODEL_KEYS))
def test_every_key_is_explained_in_the_example_and_described_in_the_model(key: str) -> None:
    comments = {name: comment for name, _default, comment in keys_in_example()}
    prose = [line for line in comments[key] if not DEFAULT.match(line)]
    assert len(" ".join(prose)) > 60, f"{key} needs a comment that says what it means and when to change it"
    section, _, name = key.rpartition(".")
    assert (SECTIONS[section] if section else Config).model_fields[name].description


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_section_is_described_in_the_model(section: str) -> None:
    assert Config.model_fields[section].description
