"""Texts in bodies that name something in the tree: their bytes need not be UTF-8."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import PlainValidator, WithJsonSchema

MOST_CHARS: Final = 8192


def _text(value: object) -> str:
    """pydantic's own `str` refuses the surrogates by which all JSON of recfs tells bytes that are not UTF-8."""
    if not isinstance(value, str) or len(value) > MOST_CHARS:
        raise ValueError(f"a text of at most {MOST_CHARS:,} characters")
    return value


TreePath = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string", "maxLength": MOST_CHARS})]
"""A path in the tree; bytes that are not UTF-8 as `os.fsdecode` has them."""

__all__ = ["TreePath"]
