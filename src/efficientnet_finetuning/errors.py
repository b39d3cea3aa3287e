"""The one exception that means "what you gave us is wrong", and what its messages are made of."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user gave is wrong: the message names it, says why, and what to do.

    Commands print its message without a traceback; everything else is a defect of this project
    and keeps its traceback.
    """


def near_matches(name: str, known: Iterable[str]) -> str:
    """Say which of the ``known`` names ``name`` may have meant.

    Returns:
        ``" Did you mean 'a' or 'b'?"`` with a leading space, or an empty string.
    """
    by_folded = {candidate.casefold(): candidate for candidate in known}
    matches = get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    if not matches:
        return ""
    return f" Did you mean {' or '.join(repr(by_folded[match]) for match in matches)}?"


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 image``, ``2,000 images``, ``3 classes``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def shorten(names: Sequence[str], limit: int = 10) -> str:
    """The first names of a list that may be long, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"
