"""Foreign text on a page."""

import re


def plain(text: str) -> str:
    """Escape Markdown, because names of files and classes may contain anything."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&])", r"\\\1", " ".join(text.split()))
