"""Serve a page: ``python -m efficientnet_finetuning.apps.launch demo <job>``, in the project's folder.

Or the review page: ``… launch review <job> <corrections.csv>``.
"""

import importlib.util
import os
import sys
from pathlib import Path

from efficientnet_finetuning.bundle.explain import MAX_MEGABYTES
from efficientnet_finetuning.bundle.stored import find_champion, find_issues
from efficientnet_finetuning.errors import InputError

# What each page shows must be there before a server starts.
_PAGES = {"demo": find_champion, "review": find_issues}


def command(page: str, job: str, data: Path, *more: str) -> list[str]:
    """The command that serves a page about a job, to this machine alone.

    Args:
        page: ``demo`` or ``review``.
        job: as in :func:`~efficientnet_finetuning.bundle.stored.find_champion`.
        data: likewise.
        more: of ``review``, the file of corrections.

    Raises:
        InputError: Streamlit is not installed, or there is nothing to show.
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
    """Become the server, so that Ctrl-C reaches it alone."""
    page, job, *more = sys.argv[1:]
    try:
        arguments = command(page, job, Path("data"), *more)
    except InputError as error:
        sys.exit(str(error))
    os.execv(arguments[0], arguments)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
