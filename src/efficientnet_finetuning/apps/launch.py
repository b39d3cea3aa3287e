"""Serve a page; run this in the project's folder.

``python -m efficientnet_finetuning.apps.launch demo <job>`` or ``… launch review <job> <corrections.csv>``.
"""

import importlib.util
import os
import sys
from pathlib import Path

from efficientnet_finetuning.bundle.explain import MAX_MEGABYTES
from efficientnet_finetuning.bundle.stored import find_champion, find_issues
from efficientnet_finetuning.errors import InputError

# These raise an InputError if a page would have nothing to show.
_PAGES = {"demo": find_champion, "review": find_issues}


def command(page: str, job: str, data: Path, *more: str) -> list[str]:
    """The command that serves a page (``demo`` or ``review``) about a job, only to this machine.

    ``more`` holds the file of corrections for ``review``; ``job`` and ``data`` are those of
    :func:`~efficientnet_finetuning.bundle.stored.find_champion`. Raises ``InputError`` if Streamlit is not installed,
    or there is nothing to show.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise InputError(f"The {page} page needs Streamlit: pip install -c requirements.lock -e '.[demo]'.")
    _PAGES[page](job, data)
    options = {
        "server.address": "127.0.0.1",
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": MAX_MEGABYTES,
        "server.enableXsrfProtection": "true",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    file = Path(__file__).with_name(f"{page}.py")
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(file), *flags, "--", job, str(data), *more]


def main() -> None:
    """Replace this process by the server, so that Ctrl-C reaches only the server."""
    page, job, *more = sys.argv[1:]
    try:
        arguments = command(page, job, Path("data"), *more)
    except InputError as error:
        sys.exit(str(error))
    os.execv(arguments[0], arguments)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
