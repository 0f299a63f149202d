"""What is allowed, and hardly meant: a number without a unit where days were thought of, and recordings go at once."""

from typing import Final

from recfs.config.model import Config
from recfs.core.units import format_duration

_FEW_S: Final = 7_200.0
"""As seconds, the days of twenty years are still fewer."""


def hints(config: Config) -> list[str]:
    """What to look at once more, a sentence for each, with the setting's name. Lifetimes of zero are meant."""
    found = [("recordings.grace", config.recordings.grace), ("trash.retention", config.trash.retention)]
    for number, rule in enumerate(config.retention, start=1):
        found += [
            (f"retention[{number}].{key}", value)
            for key, value in (("retention", rule.retention_s), ("grace", rule.grace_s))
            if value is not None
        ]
    return [
        f'{key} is {format_duration(value)}: a number without a unit is seconds; days are written as in "90d"'
        for key, value in found
        if 0 < value < _FEW_S
    ]


__all__ = ["hints"]
