"""What `recfs doctor` looks at, one file per subject. A check judges and names the remedy, no more."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done for what the configuration asks for."""
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `remedy` is empty exactly when the level is OK."""

    name: str
    level: Level
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it for --json."""
        return {"name": self.name, "status": self.level.value, "detail": self.detail, "remedy": self.remedy}
