"""All uses of Kedro's private names.

``tests/io/test_kedro_internals.py`` fails if a new Kedro changes one of them. Two more are overridden elsewhere:
``AbstractRunner._run``, because our runner skips nodes, and ``AbstractVersionedDataset._get_save_path``, because
versions are staged and then renamed.
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
    """Call the unwrapped ``save``: Kedro's wrapper would look for a version that is not published yet."""
    unwrap(save)(dataset, data)


def load_version(dataset: AbstractVersionedDataset) -> str | None:
    """The version that a dataset has already resolved; Kedro's public method searches the folder."""
    return dataset._cached_load_version


def set_load_version(dataset: AbstractVersionedDataset, version: str) -> None:
    """Set the version to load; in Kedro only the command line can."""
    dataset._cached_load_version = version


def is_async(runner: "AbstractRunner") -> bool:
    """Whether a runner loads and saves in threads."""
    return runner._is_async


def hooks_of(session: "KedroSession") -> "PluginManager":
    """The hooks of a session; Kedro does not call them for interruptions such as Ctrl-C."""
    return session._hook_manager
