"""Serve the demo page: ``python -m efficientnet_finetuning.apps.launch <job>``, in the project's folder."""

import importlib.util
import os
import sys
from pathlib import Path

from efficientnet_finetuning.bundle.explain import MAX_MEGABYTES
from efficientnet_finetuning.bundle.stored import find_champion
from efficientnet_finetuning.errors import InputError


def command(job: str, data: Path) -> list[str]:
    """The command that serves the page of a job's champion, to this machine alone.

    Raises:
        InputError: Streamlit is not installed, or no champion is stored.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise InputError("The demo page needs Streamlit: pip install -c requirements.lock -e '.[demo]'.")
    find_champion(job, data)
    options = {
        "server.address": "127.0.0.1",
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": MAX_MEGABYTES,
        "server.enableXsrfProtection": "true",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    page = Path(__file__).with_name("demo.py")
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(page), *flags, "--", job, str(data)]


def main() -> None:
    """Become the server, so that Ctrl-C reaches it alone."""
    try:
        arguments = command(sys.argv[1], Path("data"))
    except InputError as error:
        sys.exit(str(error))
    os.execv(arguments[0], arguments)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
