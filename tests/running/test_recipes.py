"""The jobs in conf: their parameters hold, and TFDS knows their sets."""

from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader

from efficientnet_finetuning.parameters.validation import validate
from efficientnet_finetuning.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.parent.name for path in (ROOT / "conf").glob("*/globals.yml") if path.parent.name != "base")


def load(recipe: str) -> OmegaConfigLoader:
    return OmegaConfigLoader(conf_source=str(ROOT / "conf"), env=recipe, **CONFIG_LOADER_ARGS)


def test_the_promised_recipes_are_there():
    assert RECIPES == [
        "cifar10",
        "cifar100",
        "folder",
        "food101",
        "oxford_flowers102",
        "oxford_iiit_pet",
        "seed_recipe",
        "stanford_dogs",
    ]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_valid_and_has_a_place_of_its_own(recipe):
    parameters = validate(load(recipe)["parameters"])
    assert load(recipe)["globals"]["job"] == recipe
    assert parameters.dataset.name == {"folder": None, "seed_recipe": "cifar10_sample"}.get(recipe, recipe)
    assert recipe in str(load(recipe)["catalog"]["manifest"]["filepath"])


def test_tfds_knows_the_sets_and_their_splits():
    import tensorflow_datasets as tfds

    assert set(RECIPES) - {"folder", "seed_recipe"} <= set(tfds.list_builders(with_community_datasets=False))
    # A builder that is not prepared does not know its splits offline; those that differ from train and test are these.
    assert validate(load("food101")["parameters"]).dataset.test_split == "validation"
