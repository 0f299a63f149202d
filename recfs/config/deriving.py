"""[[derive]], [deriving] and [chunks]: what is made from recordings, and how long audio is cut."""

from typing import Annotated, Literal, Self

import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import core_schema

from recfs.config.types import AnyCase, Duration, Section, Size
from recfs.core.media.chunks import ChunkOptions, ChunkRule
from recfs.core.media.derived import SOURCES, DeriveRule, check_derive


class DeriveSection(Section):
    """One [[derive]] table, as written; `Config.derive` holds the checked rules made from these."""

    make: Annotated[Literal["thumbnail", "audio", "waveform", "sprite", "hls"], AnyCase] = Field(
        description="what is made"
    )
    pattern: str = Field(default=SOURCES, strict=True, description="glob on the path of the files it is made from")
    automatic: bool = Field(
        default=False, strict=True, description="whether it is made as soon as such a file is committed"
    )
    at: Duration = Field(default=1.0, description="thumbnail: of which moment (seconds)")
    width: int | None = Field(default=None, strict=True, description="width in pixels; none: that of the product")


class DerivingSection(Section):
    """[deriving]: bounds of the work."""

    jobs: int = Field(default=2, strict=True, ge=1, le=64, description="programs that run at the same time")
    timeout: Duration = Field(default=3600.0, gt=0.0, description="longest time one program may run (seconds)")
    max_output: Size = Field(default=4 << 30, ge=1 << 20, description="bytes of what one program may write")
    max_fetch: Size = Field(default=2 << 30, description="largest source that is fetched from S3 for it (bytes)")
    every: Duration = Field(
        default=3600.0, description="time between two looks for what rules have missed (seconds); 0: never"
    )


class ChunksSection(Section):
    """[chunks]"""

    threshold: Duration = Field(default=300.0, description="audio that is no longer is not cut (seconds)")
    length: Duration = Field(default=300.0, ge=1.0, le=86_400.0, description="length of a chunk (seconds)")
    overlap: Duration = Field(default=0.0, description="how much each begins before the last one's end (seconds)")
    silences: bool = Field(default=False, strict=True, description="whether it is cut at silences where there are any")
    automatic: tuple[str, ...] = Field(
        default=(), description="globs on the paths of files in recordings that are planned once they are committed"
    )

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        self.options()
        self.rules()
        return self

    def options(self) -> ChunkOptions:
        """Give them as the core's value."""
        return ChunkOptions(self.length, self.overlap, silences=self.silences)

    def rules(self) -> tuple[ChunkRule, ...]:
        """Give what is planned by itself as the core's values."""
        return tuple(map(ChunkRule, self.automatic))


def _rule(value: object, handler: pydantic.ValidatorFunctionWrapHandler) -> DeriveRule:
    if isinstance(value, DeriveRule):
        return value
    written: DeriveSection = handler(value)
    return DeriveRule(written.make, written.pattern, automatic=written.automatic, at_s=written.at, width=written.width)


def _checked(rules: tuple[DeriveRule, ...]) -> tuple[DeriveRule, ...]:
    check_derive(rules)
    return rules


_Derive = Annotated[
    DeriveRule,
    pydantic.GetPydanticSchema(
        lambda _type, schema: core_schema.no_info_wrap_validator_function(_rule, schema(DeriveSection))
    ),
]
DeriveRules = Annotated[tuple[_Derive, ...], AfterValidator(_checked)]

__all__ = ["ChunksSection", "DeriveRules", "DeriveSection", "DerivingSection"]
