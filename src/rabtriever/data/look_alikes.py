"""Ids that look alike and are not the same: found, and told apart by their code points."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

_NOTHING = "no character"
# Letters of other scripts that are drawn as a Latin one, and dashes.
_CYRILLIC = dict(zip("АВЕЅІЈКМНОРСТХаеѕіјорсухԁ", "ABESIJKMHOPCTXaesijopcyxd", strict=True))
_GREEK = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧον", "ABEZHIKMNOPTYXov", strict=True))
_DRAWN_ALIKE = str.maketrans(_CYRILLIC | _GREEK | dict.fromkeys("‐‑‒–—−", "-"))


class LookAlikes:
    """Known ids, by what they look like.

    Args:
        known: The ids.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._by_look = {_look(one): one for one in known}

    def of(self, unknown: str) -> str | None:
        """How a known id that looks like an unknown one differs from it, in words; None where none looks so."""
        known = self._by_look.get(_look(unknown))
        if known is None or known == unknown:
            return None
        there, here = map(_code_points, _difference(known, unknown))
        return f"{known!r} with {there} where this one has {here}; write both with the same characters"


def _look(text: str) -> str:
    """The same text for ids that are drawn alike: one form of each letter, and no character without a width."""
    drawn = unicodedata.normalize("NFKC", text).translate(_DRAWN_ALIKE)
    return "".join(one for one in drawn if unicodedata.category(one) != "Cf")


def _difference(one: str, other: str) -> tuple[str, str]:
    """What is left of two texts without their common start and end."""
    start = len(os.path.commonprefix([one, other]))
    one, other = one[start:], other[start:]
    end = len(os.path.commonprefix([one[::-1], other[::-1]]))
    return one[: len(one) - end], other[: len(other) - end]


def _code_points(text: str) -> str:
    return " ".join(f"U+{ord(character):04X}" for character in text) or _NOTHING
