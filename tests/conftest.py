"""What every test needs."""

import atexit
import gc
import os

# As in a run: see settings.py.
gc.set_threshold(10_000)
atexit.register(gc.freeze)

# A proxy of the machine must not stand between a test and the servers it starts. Some of the clients do not understand
# an exception like 127.0.0.0/8, so the exceptions are spelled out.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1", "localhost"]))

# Ray's processes are nice to all others by default, and got no time while other tests ran.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray reads this name


def pytest_collection_modifyitems(items):
    """Files of slow tests come first, so that all workers end at about the same time.

    The very first one makes what others share, so that none has to wait for it.
    """
    items.sort(key=lambda item: (item.path.name != "test_ladder.py", item.get_closest_marker("slow") is None))
