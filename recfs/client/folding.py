"""Letters of other alphabets in ASCII, for names: what people would read them as, with no way back.

Cyrillic follows the romanisation of BGN/PCGN (1947) without its marks, with the letters that Ukrainian, Belarusian,
Serbian and Macedonian have besides; Greek ELOT 743. Latin letters lose their marks (Unicode's decomposition, NFKD).
"""

from __future__ import annotations

import unicodedata
from typing import Final

# fmt: off
_SMALL: Final = {
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ё": "yo", "ж": "zh", "з": "z", "и": "i", "й": "y",
    "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f",
    "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ы": "y", "ь": "", "э": "e", "ю": "yu",
    "я": "ya",
    "і": "i", "ї": "yi", "є": "ye", "ґ": "g", "ў": "u",
    "ђ": "dj", "ј": "j", "љ": "lj", "њ": "nj", "ћ": "c", "џ": "dz", "ѓ": "gj", "ќ": "kj", "ѕ": "dz",
    "α": "a", "β": "v", "γ": "g", "δ": "d", "ε": "e", "ζ": "z", "η": "i", "θ": "th", "ι": "i", "κ": "k", "λ": "l",
    "μ": "m", "ν": "n", "ξ": "x", "ο": "o", "π": "p", "ρ": "r", "σ": "s", "ς": "s", "τ": "t", "υ": "y", "φ": "f",
    "χ": "ch", "ψ": "ps", "ω": "o",
    "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ı": "i", "ŋ": "n",
    "ŧ": "t", "ĸ": "k",
}
# fmt: on
_TABLE = _SMALL | {
    letter.upper(): told.capitalize() for letter, told in _SMALL.items() if len(letter.upper()) == 1
}  # fmt: skip
_TABLE["ẞ"] = "SS"
_TABLE.pop("I", None)  # the upper case of a dotless i is a letter that needs nothing


def fold(text: str) -> str:
    """Give *text* in ASCII as far as there is a way; every character without one is left as it is.

    >>> fold("Запись №3 – Žluťoučký kůň")
    'Zapis No3 – Zlutoucky kun'
    """
    found = []
    for char in unicodedata.normalize("NFC", text):
        if char in _TABLE:
            found.append(_TABLE[char])
        elif char.isascii():
            found.append(char)
        else:
            parts = unicodedata.normalize("NFKD", char)
            found.append("".join(_TABLE.get(part, part) for part in parts if not unicodedata.combining(part)))
    return "".join(found)


__all__ = ["fold"]
