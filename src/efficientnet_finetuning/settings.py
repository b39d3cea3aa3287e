"""Project settings; see https://docs.kedro.org/en/stable/kedro_project_setup/settings.html."""

import atexit
import gc

from efficientnet_finetuning.running.configuration import ConfigLoader
from efficientnet_finetuning.running.run_hooks import RunHooks
from efficientnet_finetuning.running.session import Session
from efficientnet_finetuning.running.tracking_hooks import TrackingHooks

# The garbage collector took a third of the time of a run that does nothing, and two of the five seconds in which Python
# imports TensorFlow and ends.
gc.set_threshold(10_000)
atexit.register(gc.freeze)

HOOKS = (RunHooks(), TrackingHooks())
SESSION_CLASS = Session
CONFIG_LOADER_CLASS = ConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # Without this, --params a.b.c=1 drops the other keys of a.b that an environment sets.
    "merge_strategy": {"parameters": "soft"},
}
