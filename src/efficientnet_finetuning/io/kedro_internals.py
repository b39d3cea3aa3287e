"""Names of Kedro that are not public, each used in one place, with the reason.

``tests/io/test_kedro_internals.py`` fails first, and says what is missing, where a new Kedro has changed one of them.
Two more are overridden and cannot stand here: ``AbstractRunner._run``, since a runner that leaves nodes out must walk
through them itself, and ``AbstractVersionedDataset._get_save_path``, since a version is written elsewhere and renamed.
"""

from collections.abc import Callable
from inspect import unwrap
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractVersionedDataset

if TYPE_CHECKING:
    from kedro.framework.session import KedroSession
    from kedro.runner import AbstractRunner
    from pluggy import PluginManager


def save_without_looking(save: Callable[..., None], dataset: AbstractVersionedDataset, data: Any) -> None:
    """Save as a dataset's class does. Kedro wraps it, and would look for a version that is not published yet."""
    unwrap(save)(dataset, data)


def load_version(dataset: AbstractVersionedDataset) -> str | None:
    """The version that a dataset has found already; Kedro only tells it with a search of the folder."""
    return dataset._cached_load_version


def set_load_version(dataset: AbstractVersionedDataset, version: str) -> None:
    """Let a dataset load a version. Kedro only lets the command line name one."""
    dataset._cached_load_version = version


def is_async(runner: "AbstractRunner") -> bool:
    """Whether a runner loads and saves in threads: Kedro has no public name for it."""
    return runner._is_async


def hooks_of(session: "KedroSession") -> "PluginManager":
    """The hooks of a session. Kedro tells them of exceptions only, and an interruption is none."""
    return session._hook_manager
