"""The exception for mistakes of the user, and helpers for its messages."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches


class InputError(ValueError):
    """A mistake in the user's input. The message names it, says why it is wrong, and what to do.

    Commands print the message without a traceback. All other exceptions are bugs and keep their traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """A text that can be printed and stored. Bytes of file names that are not UTF-8 become escape codes."""
    return text.encode(errors="backslashreplace").decode()


@contextmanager
def naming_unreadable(what: str, kind: str = "") -> Iterator[None]:
    """Turn an error from reading a file into a message for the user. ``kind`` is the expected file type."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise InputError(f"{what} cannot be read{kind and f' as {kind}'}: {reason}. Check it.") from error


def near_matches(name: str, known: Iterable[str]) -> str:
    """Suggest known names that are similar to ``name``: ``" Did you mean 'a' or 'b'?"``, or an empty string."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    matches = get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    if not matches:
        return ""
    return f" Did you mean {' or '.join(repr(by_folded[match]) for match in matches)}?"


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 image``, ``2,000 images``, ``3 classes``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share (0–1) as text: ``83.4 %``, or a dash if it is missing."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f} %"


def shorten(names: Sequence[str], limit: int = 10) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"
