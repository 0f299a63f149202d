"""[backup]: copies of the catalogue."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from recfs.config.types import AbsolutePath, Duration, Section

MINUTE_S = 60.0


def _period(value: float) -> float:
    if 0 < value < MINUTE_S:
        raise ValueError('at least "1m"; "0s" makes none')
    return value


def _recipient(value: str) -> str:
    """An age recipient, https://c2sp.org/age: Bech32 of a public X25519 key."""
    import pyrage  # loads a library that few configurations need

    try:
        pyrage.x25519.Recipient.from_str(value)
    except pyrage.RecipientError as error:
        secret = value.upper().startswith("AGE-SECRET-KEY-")
        what = "this is a secret key, which belongs on no server" if secret else "no public key of age"
        raise ValueError(f"{what}: write the age1... that `age-keygen` prints") from error
    return value


class BackupSection(Section):
    """[backup]"""

    every: Annotated[Duration, AfterValidator(_period)] = Field(
        default=86_400.0, le=366 * 86_400.0, description="time between two backups of the catalogue (seconds); 0: none"
    )
    keep: int = Field(default=7, strict=True, ge=1, le=10_000, description="backups that are kept at each place")
    directory: AbsolutePath | None = Field(default=None, description="where they lie; none: .recfs/backups in root")
    to_bucket: bool = Field(default=False, strict=True, description="whether each goes to the bucket of [s3], too")
    recipients: tuple[Annotated[str, Field(strict=True), AfterValidator(_recipient)], ...] = Field(
        default=(), description="public keys of age they are encrypted for; none: not encrypted"
    )


__all__ = ["BackupSection"]
