"""The one exception that means "what you gave us is wrong", and the search for near names."""

from collections.abc import Iterable
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
