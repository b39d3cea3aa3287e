"""Configuration as Kedro loads it, with the recommended backbone and image size in the place of ``auto``."""

import logging
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from kedro.config import AbstractConfigLoader, OmegaConfigLoader
from kedro.io import Version

from efficientnet_finetuning.io.committed import JSONDataset
from efficientnet_finetuning.parameters import Parameters
from efficientnet_finetuning.parameters.validation import validate

logger = logging.getLogger(__name__)


class ConfigLoader(OmegaConfigLoader):
    """Kedro's own loader, which every reader of parameters goes through."""

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Load one kind of configuration, such as ``parameters``."""
        loaded = super().__getitem__(key)
        if key == "parameters" and _names_auto(loaded):
            self._recommend(loaded)
        return loaded

    @cached_property
    def validated(self) -> Parameters:
        """All parameters, checked.

        Raises:
            InputError: anything is wrong with them.
        """
        return validate(self["parameters"])

    def _recommend(self, parameters: dict[str, Any]) -> None:
        path = Path(self.conf_source).parent / self["catalog"]["backbone_choice"]["filepath"]
        dataset = JSONDataset(filepath=path.as_posix(), version=Version(None, None))
        if not dataset.exists():
            return  # the pipeline that needs it refuses to run, and the one that makes it runs
        choice = dataset.load()
        parameters["backbone"]["name"] = choice["backbone"]
        parameters["preprocessing"]["image_size"] = choice["image_size"]
        _tell(choice["backbone"], choice["image_size"])


def parameters_of(config_loader: AbstractConfigLoader) -> Parameters:
    """All parameters of a context's configuration, checked once; raises what :attr:`ConfigLoader.validated` does."""
    assert isinstance(config_loader, ConfigLoader)
    return config_loader.validated


@cache  # a run loads its parameters several times
def _tell(backbone: str, image_size: int) -> None:
    logger.info("auto: %s at %s px, as choose_backbone recommended", backbone, image_size)


def _names_auto(parameters: dict[str, Any]) -> bool:
    """Whether both are left to the recommendation; what is wrong with the parameters is said by who validates them."""
    try:
        return bool(parameters["backbone"]["name"] == parameters["preprocessing"]["image_size"] == "auto")
    except (KeyError, TypeError):
        return False
