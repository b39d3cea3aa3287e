"""The one exception that means "what you gave us is wrong", and what its messages are made of."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user gave is wrong: the message names it, says why, and what to do.

    Commands print its message without a traceback; everything else is a defect of this project
    and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """A text for terminals, tables and pages: names of files need not be UTF-8, and their odd bytes become codes."""
    return text.encode(errors="backslashreplace").decode()


@contextmanager
def naming_unreadable(what: str, kind: str = "") -> Iterator[None]:
    """Turn whatever Python raises for a path that leads nowhere, or for no file of a kind, into a message for users."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise InputError(f"{what} cannot be read{kind and f' as {kind}'}: {reason}. Check it.") from error


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
