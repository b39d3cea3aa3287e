import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import (
    BackboneParameters,
    PreprocessingParameters,
    image_size,
)
from efficientnet_finetuning.parameters.validation import flatten, validate

BASE = Path(__file__).parents[2] / "conf" / "base"


@pytest.fixture
def raw() -> dict:
    groups: dict = {}
    for file in sorted(BASE.glob("parameters*.yml")):
        groups |= yaml.safe_load(file.read_text(encoding="utf-8"))
    return groups


def change(raw: dict, name: str, value: object) -> dict:
    *groups, last = name.split(".")
    group = raw
    for part in groups:
        group = group[part]
    group[last] = value
    return raw


def fault(raw: dict) -> str:
    with pytest.raises(InputError) as caught:
        validate(raw)
    return str(caught.value)


def leaves(raw: Mapping, prefix: str = "") -> dict:
    found = {}
    for name, value in raw.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_the_base_configuration_is_valid_and_flat_under_dotted_names_defaults_included(raw):
    flat = flatten(validate(raw))
    assert flat["dataset.test_fraction"] == 0.2
    assert not any(isinstance(value, BaseModel) for value in flat.values())
    expected = leaves(raw)
    assert {name: flat[name] for name in expected} == expected | {
        "dataset.data_dir": Path("data/01_raw"),
        "transfer.head.inverse_regularizations": tuple(raw["transfer"]["head"]["inverse_regularizations"]),
        "choose_backbone.backbones": tuple(raw["choose_backbone"]["backbones"]),
        "choose_backbone.image_sizes": tuple(raw["choose_backbone"]["image_sizes"]),
        "export.formats": tuple(raw["export"]["formats"]),
    }


def test_names_with_a_leading_underscore_are_yaml_helpers(raw):
    assert validate(raw | {"_schedule": {"anything": 1}}) == validate(raw)


def test_an_unknown_group_is_refused_with_its_near_match(raw):
    message = fault(raw | {"finetuning": {}})
    assert "finetuning: unknown parameter. Did you mean 'finetune' or 'seed_finetune'?" in message
    assert "Known here: seed, keep_versions, dataset, audit, preprocessing" in message


def test_a_missing_group_is_refused_and_the_message_says_where_it_belongs(raw):
    del raw["evaluation"]
    assert "evaluation: missing. Add it to a parameters*.yml of your environment." in fault(raw)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("patient[0-9]+", "'patient[0-9]+' has 0 groups in parentheses. It needs exactly one"),
        ("(a)-(b)", "'(a)-(b)' has 2 groups in parentheses"),
        ("(a", "'(a' is not a regular expression: missing )"),
    ],
)
def test_a_group_pattern_has_one_group(raw, pattern, words):
    assert f"dataset.group_pattern: {words}" in fault(change(raw, "dataset.group_pattern", pattern))
    assert validate(change(raw, "dataset.group_pattern", "(?:patient)([0-9]+)")).dataset.group_pattern


def test_all_faults_are_listed_at_once_with_their_full_names(raw):
    raw["finetune"]["trainning"] = raw["finetune"].pop("training")
    change(raw, "baseline.training.augmentation.rotatoin", 0.1)
    change(raw, "transfer.head.batch_size", 0)
    change(raw, "backbone.name", "EfficientNetLite9")
    message = fault(raw)
    assert "finetune.trainning: unknown parameter. Did you mean 'training'?" in message
    assert "finetune.training: missing" in message
    assert "baseline.training.augmentation.rotatoin: unknown parameter. Did you mean 'rotation'?" in message
    assert "transfer.head.batch_size: Input should be greater than or equal to 1. Received: 0." in message
    assert "backbone: unknown backbone 'EfficientNetLite9'. Did you mean 'EfficientNetLite" in message
    assert "Known: EfficientNetB0, " in message
    assert message.count("\n  - ") == 5


@pytest.mark.parametrize("regime", ["baseline", "finetune"])
def test_an_unknown_block_is_refused_with_near_matches_and_the_blocks_there_are(raw, regime):
    message = fault(change(raw, f"{regime}.training.unfreeze_from", "block6z"))
    assert f"{regime}.training.unfreeze_from: EfficientNetLite0 has no block 'block6z'. Only whole blocks" in message
    assert "Did you mean 'block6" in message
    assert "Known: all, stem, block1a, " in message


def test_a_block_is_looked_up_in_the_backbone_that_is_given(raw):
    change(raw, "finetune.training.unfreeze_from", "block7b")
    assert "no block 'block7b'" in fault(raw)
    assert validate(change(raw, "backbone.name", "EfficientNetB4")).finetune.training.unfreeze_from == "block7b"


def test_unknown_blocks_of_both_regimes_are_listed_at_once(raw):
    change(raw, "baseline.training.unfreeze_from", "block6z")
    message = fault(change(raw, "finetune.training.unfreeze_from", "block9a"))
    assert "block6z" in message
    assert "block9a" in message


def test_a_weights_file_must_exist(raw, tmp_path):
    message = fault(change(raw, "backbone.weights", str(tmp_path / "missing.h5")))
    assert f"backbone: weights {str(tmp_path / 'missing.h5')!r} is not `imagenet`, `none`" in message
    assert "Did you mean 'imagenet'?" in fault(change(raw, "backbone.weights", "imagnet"))
    file = tmp_path / "there.h5"
    file.touch()
    assert validate(change(raw, "backbone.weights", str(file))).backbone.weights == str(file)


def test_a_cluster_without_workers_is_refused(raw):
    change(raw, "cluster.address", "auto")
    assert "cluster.address is auto, but device.workers is 1" in fault(raw)
    assert validate(change(raw, "device.workers", "all")).cluster.address == "auto"
    message = fault(change(raw, "cluster.address", "http://head"))
    assert "cluster.address: 'http://head' is not a valid address. Give auto, ray://<host>:10001, or null" in message


@pytest.mark.parametrize(("path", "given"), [("photos", "both"), (None, "neither")])
def test_a_set_is_named_either_by_name_or_by_path(raw, path, given):
    change(raw, "dataset.path", path)
    if path is None:
        change(raw, "dataset.name", None)
    message = fault(raw)
    assert "dataset: give either `name`" in message
    assert f"not {given}. For a folder, add --env folder to the command" in message


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("preprocessing.image_size", 24, "greater than or equal to 32"),
        ("device.workers", 0, "greater than or equal to 1"),
        ("device.accelerator", "tpu", "'auto', 'cpu' or 'gpu'"),
        ("dataset.validation_fraction", 1.0, "less than 1"),
        ("baseline.training.label_smoothing", 1.0, "less than 1"),
        ("baseline.training.drop_connect_rate", -0.1, "greater than or equal to 0"),
        ("finetune.training.learning_rate", 0, "greater than 0"),
        ("finetune.training.warmup_fraction", 1.5, "less than or equal to 1"),
        ("finetune.training.augmentation.rotation", 0.6, "less than or equal to 0.5"),
        ("transfer.head.inverse_regularizations", [], "at least 1 item"),
        ("seed", -1, "greater than or equal to 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_the_rule_and_the_value(raw, name, value, rule):
    message = fault(change(raw, name, value))
    line = next(line for line in message.splitlines() if line.startswith(f"  - {name}: "))
    assert rule in line
    assert line.endswith(f"Received: {value!r}.")


def test_an_image_size_that_is_no_multiple_of_8_warns(raw):
    with pytest.warns(UserWarning, match="image_size is 100, not a multiple of 8"):
        parameters = validate(change(raw, "preprocessing.image_size", 100))
    assert parameters.preprocessing.image_size == 100


def test_parameters_cannot_be_changed_at_any_depth(raw):
    parameters = validate(raw)
    for model, name in ((parameters, "seed"), (parameters.finetune.training.augmentation, "rotation")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, name, 0)


def test_the_image_size_falls_back_to_the_backbones_native_resolution():
    backbone = BackboneParameters(name="EfficientNetB3")
    assert image_size(PreprocessingParameters(), backbone) == 300
    assert image_size(PreprocessingParameters(image_size=64), backbone) == 64


def test_importing_the_parameters_imports_nothing_heavy():
    code = (
        "import sys, efficientnet_finetuning.parameters as p\n"
        "assert p.Parameters\n"
        "print(sorted({'keras', 'tensorflow', 'tensorflow_datasets', 'kedro', 'sklearn', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_averaging_over_mirror_images_that_training_avoids_is_refused(raw):
    change(raw, "evaluation.flip", True)
    message = fault(change(raw, "finetune.training.augmentation.flip", "none"))
    assert "evaluation.flip averages over mirror images" in message
    assert "Set evaluation.flip to false" in message


def test_rmsprop_warns(raw):
    with pytest.warns(UserWarning, match="optimizer is rmsprop"):
        validate(change(raw, "finetune.training.optimizer", "rmsprop"))


@pytest.mark.parametrize("value", ["auto", 0.001])
def test_a_learning_rate_is_a_number_or_auto(raw, value):
    assert validate(change(raw, "finetune.training.learning_rate", value)).finetune.training.learning_rate == value


def test_a_misspelt_auto_names_what_is_allowed(raw):
    message = fault(change(raw, "finetune.training.learning_rate", "automatic"))
    allowed = "finetune.training.learning_rate: Input should be a valid number, or 'auto' or 'find'."
    assert f"{allowed} Received: 'automatic'." in message
    message = fault(change(raw, "finetune.training.epochs", 0))
    assert "finetune.training.epochs: Input should be greater than or equal to 1, or 'auto'. Received: 0." in message
    assert message.count("\n") == 2, "two mistakes in two parameters"


@pytest.mark.parametrize("part", ["block6a_expand_conv", "block6"])
def test_a_part_of_a_block_is_refused(raw, part):
    message = fault(change(raw, "finetune.training.unfreeze_from", part))
    assert f"has no block {part!r}. Only whole blocks can be trained" in message


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate"])
def test_rules_for_fine_tuning_are_refused_elsewhere(raw, name):
    message = fault(change(raw, f"baseline.training.{name}", "auto"))
    assert f"baseline.training.{name}: auto works for fine-tuning only" in message


def test_a_single_fold_is_refused(raw):
    message = fault(change(raw, "transfer.head.folds", 1))
    assert "transfer.head: folds is 1, which leaves no image for fitting. Give 0, auto, or at least 2." in message


@pytest.mark.parametrize(
    ("group", "name", "meant"),
    [
        (
            None,
            "epochs",
            "epochs: unknown parameter. Did you mean finetune.training.epochs or baseline.training.epochs?",
        ),
        ("baseline", "epochs", "baseline.epochs: unknown parameter. Did you mean baseline.training.epochs?"),
        (None, "image_size", "image_size: unknown parameter. Did you mean preprocessing.image_size?"),
    ],
)
def test_a_parameter_without_its_group_is_told_which_one_it_is(raw, group, name, meant):
    (raw[group] if group else raw)[name] = 3
    assert meant in fault(raw)
