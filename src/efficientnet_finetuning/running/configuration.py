"""Kedro configuration. ``auto`` is replaced by the recommended backbone and image size."""

import logging
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from kedro.config import AbstractConfigLoader, OmegaConfigLoader
from kedro.io import Version

from efficientnet_finetuning.errors import naming_unreadable
from efficientnet_finetuning.io.committed import JSONDataset
from efficientnet_finetuning.parameters import Parameters
from efficientnet_finetuning.parameters.validation import validate

logger = logging.getLogger(__name__)


class ConfigLoader(OmegaConfigLoader):
    """Kedro's loader. All code that needs parameters loads them with it."""

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Load one kind of configuration, such as ``parameters``."""
        loaded = super().__getitem__(key)
        if key == "parameters" and _names_auto(loaded):
            self._recommend(loaded)
        return loaded

    @cached_property
    def validated(self) -> Parameters:
        """All parameters, validated.

        Raises:
            InputError: a parameter is wrong.
        """
        return validate(self["parameters"])

    def _recommend(self, parameters: dict[str, Any]) -> None:
        path = Path(self.conf_source).parent / self["catalog"]["backbone_choice"]["filepath"]
        dataset = JSONDataset(filepath=path.as_posix(), version=Version(None, None))
        if not dataset.exists():
            return  # a pipeline that needs the recommendation stops with an error; choose_backbone must run
        with naming_unreadable(f"The backbone recommendation in {dataset.path}"):
            choice = dataset.load()
            name, image_size = choice["backbone"], choice["image_size"]
        parameters["backbone"]["name"], parameters["preprocessing"]["image_size"] = name, image_size
        _tell(name, image_size)


def parameters_of(config_loader: AbstractConfigLoader) -> Parameters:
    """The validated parameters of a context. Raises the errors of :attr:`ConfigLoader.validated`."""
    assert isinstance(config_loader, ConfigLoader)
    return config_loader.validated


@cache  # a run loads its parameters several times
def _tell(backbone: str, image_size: int) -> None:
    logger.info("auto: choose_backbone recommended %s at %s px", backbone, image_size)


def _names_auto(parameters: dict[str, Any]) -> bool:
    """Whether backbone and image size are both ``auto``. Invalid parameters are reported later, by the validation."""
    try:
        return bool(parameters["backbone"]["name"] == parameters["preprocessing"]["image_size"] == "auto")
    except (KeyError, TypeError):
        return False
