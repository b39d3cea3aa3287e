"""Pipelines beside the ladder, really run."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.models.classifier import TrainedClassifier

pytestmark = pytest.mark.slow

# The environment's parameters come before those of conf/local, which it takes the place of.
PHOTOS = ("dataset.name=null", "dataset.data_dir=null", "dataset.path=photos", "preprocessing.image_size=32")
RECIPE = ("seed_frozen.training.epochs=2", "seed_finetune.training.epochs=1", "seed_frozen.training.batch_size=8")


def test_the_keras_examples_recipe_runs_as_a_pipeline(trained):
    result = trained.kedro(
        "run", "--pipelines", "seed_parity", "--env", "seed_recipe", "--params", ",".join((*RECIPE, *PHOTOS))
    )
    assert result.returncode == 0, result.stdout + result.stderr
    table = result.stdout[result.stdout.index("regime") :].splitlines()
    assert [line.split()[0] for line in table[1:3]] == ["seed_frozen", "seed_finetune"]
    start, frozen, finetuned = (
        TrainedClassifier.load(trained.newest(f"{name}.keras")).model
        for name in ("seed_frozen_start", "seed_frozen_model", "seed_finetune_model")
    )
    assert isinstance(frozen.get_layer("head_bn"), keras.layers.BatchNormalization)
    moved = [layers_that_differ(*pair) for pair in ((start, frozen), (frozen, finetuned))]
    assert moved[0] <= {"head_bn", "logits"}, "the backbone stays frozen"
    assert {name.split("_")[0] for name in moved[1]} <= {"block7a", "top", "head", "logits"}
    assert len(pd.read_csv(trained.newest("seed_frozen_history.csv"))) == 2


def layers_that_differ(one: keras.Model, other: keras.Model) -> set[str]:
    return {
        layer.name
        for layer in one.layers
        if any(
            (a != b).any() for a, b in zip(layer.get_weights(), other.get_layer(layer.name).get_weights(), strict=True)
        )
    }


def test_the_recipe_without_its_environment_says_which_one(trained):
    assert "For seed_parity, add --env seed_recipe" in trained.refuses("run", "--pipelines", "seed_parity")


def test_the_learning_rate_finder_draws_its_curve_and_suggests(trained):
    result = trained.kedro("run", "--pipelines", "find_learning_rate")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the finder suggests" in result.stdout + result.stderr
    curve = pd.read_csv(trained.newest("learning_rates.csv"))
    assert curve["learning_rate"].is_monotonic_increasing
    assert curve["loss"].notna().all()
    with Image.open(trained.newest("learning_rate_curve.png")) as image:
        assert image.width > 500


AUTO = ("--params", "backbone.name=auto,preprocessing.image_size=auto")


def test_auto_takes_what_choose_backbone_recommended_and_says_so(trained):
    assert "--pipelines choose_backbone first" in trained.refuses("run", "--pipelines", "transfer", *AUTO)
    chosen = trained.kedro("run", "--pipelines", "choose_backbone", *AUTO)
    assert chosen.returncode == 0, chosen.stdout + chosen.stderr
    choice = json.loads(trained.newest("backbone_choice.json").read_text())
    assert choice["backbone"] == "EfficientNetLite1"
    assert choice["words"] in " ".join((chosen.stdout + chosen.stderr).split())
    with Image.open(trained.newest("backbone_front.png")) as image:
        assert image.width > 500
    taken = trained.kedro("run", "--pipelines", "transfer", *AUTO)
    output = taken.stdout + taken.stderr
    assert taken.returncode == 0, output
    assert output.count("auto: choose_backbone recommended") == 1
    classifier = TrainedClassifier.load(trained.newest("transfer_model.keras"))
    assert (classifier.backbone, classifier.image_size) == (choice["backbone"], choice["image_size"])


def test_auto_in_one_place_alone_is_refused(trained):
    message = trained.refuses("run", "--params", "backbone.name=auto")
    assert "backbone.name and preprocessing.image_size must both be auto, or neither" in message


def test_cross_validation_judges_every_image_by_models_that_had_not_seen_it(trained):
    parameters = "evaluation.folds=2,dataset.group_pattern=([a-z]+/[0-9])"  # red/1.png, red/10.png and red/11.png
    result = trained.kedro("run", "--pipelines", "cross_validation", "--params", parameters)
    output = " ".join((result.stdout + result.stderr).split())
    assert result.returncode == 0, output
    assert "fold 1 of 2, 18 images: transfer" in output
    folder = trained.newest("cross_validation_answers")
    answers = {file.stem: np.load(file) for file in folder.glob("*.npy")}
    job = folder.parents[2].name  # other tests here have jobs of their own
    manifest = pd.read_csv(max(trained.path.glob(f"data/02_intermediate/{job}/manifest.csv/*/manifest.csv")))
    assert sorted(answers["ids"]) == sorted(manifest["id"])
    assert "groups: 3 of more than one image, 9 images in all; the largest, blue/1, has 3;" in output
    folds = pd.Series(answers["folds"], answers["ids"])
    assert (folds.groupby(manifest.set_index("id")["group"]).nunique() == 1).all()
    comparison = pd.read_csv(trained.newest("cross_validation_comparison.csv")).set_index("regime")
    for regime in ("transfer", "finetune"):
        right = answers[regime].argmax(1) == answers["labels"].argmax(1)
        assert comparison.loc[regime, "top1"] == pytest.approx(right.mean())
        assert comparison.loc[regime, "num_images"] == len(manifest)
    verdict = json.loads(trained.newest("cross_validation_verdict.json").read_text())
    assert verdict["words"] in output
