"""Titles as people gave them, and what programs made of them."""

from __future__ import annotations

import random
import unicodedata

NAME_MAX_BYTES = 255

_SUBJECTS = (
    "Перевод на ИИ",
    "Лекция по матанализу",
    "Йога и здоровье",
    "Вводное занятие: ёлки и ежи",
    "Семинар «Машинное обучение»",
    "Разбор домашних заданий",
    "Планёрка отдела",
    "Собеседование",
    "Weekly sync",
    "Intro to Python",
    "Наука о данных — часть",
    "Demo day",
    "Экономика и финансы",
    "Майский хакатон",
    "Q&A с кураторами",
    "Открытый урок (запись)",
)
_SPEAKERS = ("Иванов", "Щербаков", "Ерёмина", "Цой", "Smith", "Музыкина", "")
_SEPARATORS = " :/«»()&"
_SAFE = str.maketrans(dict.fromkeys(_SEPARATORS, "_"))


def title(draw: random.Random) -> str:
    """A title of a recording as its user sees it; many have the same."""
    subject = draw.choice(_SUBJECTS)
    speaker = draw.choice(_SPEAKERS)
    return f"{subject} {speaker}".strip()


def in_a_name(text: str) -> str:
    """The title as the platform writes it into names of files."""
    return text.translate(_SAFE).strip("_")


def latin_mojibake(text: str) -> str:
    """UTF-8 that was read as Latin-1 (the C1 controls included), as an old MySQL client does."""
    return text.encode().decode("latin-1")


def cyrillic_mojibake(text: str) -> str:
    """UTF-8 that was read as Windows-1251, as an archiver does. Raises ValueError for И: its last byte is no letter."""
    return text.encode().decode("cp1251")


def composed(text: str) -> str:
    """As most programs write it (Unicode NFC)."""
    return unicodedata.normalize("NFC", text)


def decomposed(text: str) -> str:
    """As it comes from a Mac (Unicode NFD): й and ё are two characters each."""
    return unicodedata.normalize("NFD", text)


def as_long_as_possible(text: str, end: str) -> str:
    """The text repeated and cut so that with *end* it has 255 bytes, or 254 where a character would be cut."""
    room = NAME_MAX_BYTES - len(end.encode())
    whole = (text + "_") * (room // len(text.encode()) + 1)
    return whole.encode()[:room].decode(errors="ignore") + end


__all__ = [
    "NAME_MAX_BYTES",
    "as_long_as_possible",
    "composed",
    "cyrillic_mojibake",
    "decomposed",
    "in_a_name",
    "latin_mojibake",
    "title",
]
