"""Texts of others on a page."""

import re


def plain(text: str) -> str:
    """A text that Markdown shows as it is: names of files and classes may hold anything."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&])", r"\\\1", " ".join(text.split()))
