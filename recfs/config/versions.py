"""[[versions]]: of numbered versions that lie beside each other, how many are kept."""

from typing import Annotated

import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import core_schema

from recfs.config.types import Duration, Section
from recfs.core.upkeep.versions import VersionRule, check_versions


class VersionsSection(Section):
    """One [[versions]] table, as written; `Config.versions` holds the checked rules made from these."""

    pattern: str = Field(strict=True, description="glob on the path of the versions, {N} where the number stands")
    keep: int = Field(strict=True, ge=1, le=1_000_000, description="how many of the highest numbers stay")
    min_age: Duration = Field(default=86_400.0, description="time since the last change of one that goes (seconds)")


def _rule(value: object, handler: pydantic.ValidatorFunctionWrapHandler) -> VersionRule:
    if isinstance(value, VersionRule):
        return value
    written: VersionsSection = handler(value)
    return VersionRule(written.pattern, written.keep, min_age_s=written.min_age)


def _checked(rules: tuple[VersionRule, ...]) -> tuple[VersionRule, ...]:
    check_versions(rules)
    return rules


_Versions = Annotated[
    VersionRule,
    pydantic.GetPydanticSchema(
        lambda _type, schema: core_schema.no_info_wrap_validator_function(_rule, schema(VersionsSection))
    ),
]
VersionRules = Annotated[tuple[_Versions, ...], AfterValidator(_checked)]

__all__ = ["VersionRules", "VersionsSection"]
