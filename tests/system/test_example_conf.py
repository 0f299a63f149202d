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
SWITCHED_OFF = re.compile(r"#(\w+ *=.*)")
KEY = re.compile(r"#?(\w+) *=")
HEADER = re.compile(r"\[+(\w+)\]+$")
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


def model_default(dotted: str) -> Any:
    value: Any = Config(root=Path("/srv/recfs"))
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


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
    assert set(data["quota"]) == set(SECTIONS["quota"].model_fields)
    assert config.mountpoint == Path(data["mountpoint"])
    assert config.quota.max_bytes == 500 * 1024**3
    assert None not in (config.operator, config.log.file, config.quota.limits().max_monthly_uploads)


@pytest.mark.parametrize(("key", "told"), [(key, told) for key, told, _comment in keys_in_example()])
def test_the_default_the_example_tells_is_the_models(key: str, told: str | None) -> None:
    assert told is not None, f"{key} has no line '# Default: ...' above it"
    if told.startswith("none;"):
        section, _, name = key.rpartition(".")
        field = (SECTIONS[section] if section else Config).model_fields[name]
        assert field.is_required() or field.get_default() is None
        return
    section, _, name = key.rpartition(".")
    given = tomllib.loads(f"value = {told}")["value"]
    data: dict[str, Any] = {"root": "/srv/recfs"}
    data |= {section: {name: given}} if section else {name: given}
    value: Any = Config.model_validate(data)
    for part in key.split("."):
        value = getattr(value, part)
    assert value == model_default(key)


def test_the_fallback_default_the_example_tells_is_the_models() -> None:
    header = LINES.index("[[fallback]]")
    told = DEFAULT.match(LINES[header - 1])
    assert told is not None
    rules = tomllib.loads(f"fallback = {told[1]}")["fallback"]
    config = Config.model_validate({"root": "/srv/recfs", "fallback": rules})
    assert config.fallback == model_default("fallback")


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
