import keras
import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.architectures import ARCHITECTURES
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.freezing import unfreeze
from efficientnet_finetuning.models.heads import (
    assemble,
    attach_head,
    averaged_maps,
    backbone_of,
    dense_head,
    feature_extractor,
    from_features,
    logits_of,
    stage_of,
    with_class,
    with_features,
    with_head_inputs,
    with_rates,
    without_training_state,
)

BLOCKS = [block for block in ARCHITECTURES["EfficientNetLite0"].blocks if block.startswith("block")]


@pytest.fixture(scope="module")
def classifier(lite0) -> keras.Model:
    keras.utils.set_random_seed(0)
    return attach_head(lite0, 3, 0.2)


@pytest.fixture(scope="module")
def logits(classifier, pixels) -> np.ndarray:
    return np.asarray(classifier(pixels))


def rates(model: keras.Model) -> dict[str, float]:
    return {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}


def expected_rates(drop_connect_rate: float, head_dropout: float) -> dict[str, float]:
    with_shortcut = ["block2b", "block3b", "block4b", "block4c", "block5b", "block5c", "block6b", "block6c", "block6d"]
    linear = {f"{block}_drop": drop_connect_rate * BLOCKS.index(block) / 16 for block in with_shortcut}
    return linear | {"head_dropout": head_dropout}


@pytest.mark.parametrize(("drop_connect_rate", "head_dropout"), [(0.4, 0.3), (0.0, 0.0)])
def test_rates_grow_linearly_the_outputs_stay_and_both_survive_a_save(
    classifier, logits, pixels, tmp_path, drop_connect_rate, head_dropout
):
    changed = with_rates(classifier, drop_connect_rate, head_dropout)
    assert rates(changed) == pytest.approx(expected_rates(drop_connect_rate, head_dropout))
    assert rates(classifier) == pytest.approx(expected_rates(0.2, 0.2))
    changed.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert rates(loaded) == rates(changed)
    np.testing.assert_array_equal(changed(pixels), logits)
    np.testing.assert_array_equal(loaded(pixels), logits)


def test_rates_act_in_training_alone_and_can_come_back_after_zero(classifier, logits, pixels):
    still = with_rates(classifier, 0.0, 0.0)
    unfreeze(still, "EfficientNetLite0", "all", freeze_batch_norm=True)
    np.testing.assert_allclose(still(pixels, training=True), logits, rtol=1e-4, atol=1e-5)
    lively = with_rates(still, 0.5, 0.5)
    assert rates(lively) == pytest.approx(expected_rates(0.5, 0.5))
    assert np.abs(lively(pixels, training=True) - logits).max() > 0.01


def test_an_assembled_classifier_is_the_head_on_the_features(lite0, pixels):
    random = np.random.default_rng(0)
    kernel, bias = random.normal(0, 0.01, (2064, 7)).astype("float32"), random.normal(size=7).astype("float32")
    head, features = dense_head(kernel, bias), np.asarray(feature_extractor(lite0)(pixels))
    assert features.shape == (5, 2064)
    np.testing.assert_allclose(features[:, -1280:], np.asarray(lite0(pixels)).mean((1, 2)), rtol=1e-5)
    third_stage = keras.Model(lite0.input, lite0.get_layer("block3b_add").output)(pixels)
    np.testing.assert_allclose(features[:, 40:80], np.asarray(third_stage).mean((1, 2)), rtol=1e-4, atol=1e-5)
    expected = features @ kernel + bias
    np.testing.assert_allclose(head(features), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(assemble(lite0, head, 0.2)(pixels), expected, rtol=1e-4, atol=1e-4)


def test_a_head_on_the_last_map_alone_is_assembled_on_it_alone(lite0, pixels):
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(1280, 7)).astype("float32"), random.normal(size=7).astype("float32")
    model = assemble(lite0, dense_head(kernel, bias), 0.2)
    expected = np.asarray(lite0(pixels)).mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-4, atol=1e-4)
    assert [layer.name for layer in model.layers if layer.name.startswith("avg_pool")] == ["avg_pool"]


def test_under_mixed_precision_features_and_logits_are_float32_and_the_global_policy_comes_back():
    backbone = build_backbone("EfficientNetLite0", 32, "none", dtype_policy="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    assert str(backbone.output.dtype) == "bfloat16"
    assert {weight.dtype for weight in backbone.weights} == {"float32"}
    copy = with_rates(attach_head(backbone, 3, 0.2, batch_norm=True), 0.1, 0.1)
    assert str(copy.get_layer("top_conv").compute_dtype) == "bfloat16"
    assert {copy.get_layer(name).compute_dtype for name in ("avg_pool", "head_bn", "logits")} == {"float32"}
    assert str(copy.output.dtype) == "float32"
    features = feature_extractor(backbone)
    assert str(features.output.dtype) == "float32"
    pools = [layer for layer in features.layers if layer.name.startswith("avg_pool")]
    assert {layer.compute_dtype for layer in (*pools, features.get_layer("features"))} == {"float32"}


def test_the_global_policy_comes_back_after_a_failure_too():
    with pytest.raises(InputError, match=r"gone\.pth does not exist"):
        build_backbone("EfficientNetLite0", 32, "gone.pth", dtype_policy="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"


def test_what_is_kept_is_the_network_without_an_optimizer(classifier, logits, pixels):
    kept = without_training_state(trained_a_little(classifier))
    assert not kept.compiled
    assert rates(kept) == pytest.approx(expected_rates(0.1, 0.1))
    np.testing.assert_array_equal(kept(pixels), logits)


def test_what_is_kept_has_nothing_frozen(classifier):
    kept = without_training_state(trained_a_little(classifier))
    assert [layer.name for layer in kept.layers if not layer.trainable] == []


def trained_a_little(classifier: keras.Model) -> keras.Model:
    model = with_rates(classifier, 0.1, 0.1)
    unfreeze(model, "EfficientNetLite0", "top", freeze_batch_norm=True)
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="module", params=["all stages", "the last map"])
def assembled(request, lite0) -> keras.Model:
    """A classifier whose head sees the features of all stages, or only the last ones."""
    channels = 2064 if request.param == "all stages" else 1280
    random = np.random.default_rng(0)
    kernel = random.normal(0, 0.01, (channels, 3)).astype("float32")
    return assemble(lite0, dense_head(kernel, random.normal(size=3).astype("float32")), 0.2)


def test_a_classifier_can_be_taken_apart(assembled, lite0, pixels):
    backbone = backbone_of(assembled)
    assert (backbone.name, assembled.name) == (lite0.name, f"{lite0.name}_classifier")
    np.testing.assert_array_equal(backbone(pixels), lite0(pixels))
    maps = [keras.Model(assembled.input, each)(pixels) for each in averaged_maps(assembled)]
    features = np.concatenate([np.asarray(each).mean((1, 2)) for each in maps], axis=1)
    kernel, bias = logits_of(assembled)
    np.testing.assert_allclose(features @ kernel + bias, assembled(pixels), rtol=1e-3, atol=1e-4)
    outputs = features
    for layer in from_features(assembled):
        outputs = layer(outputs)
    np.testing.assert_allclose(outputs, assembled(pixels), rtol=1e-3, atol=1e-4)


def test_logits_come_with_the_features_of_the_last_map_and_with_all_that_the_head_sees(assembled, lite0, pixels):
    last, (kernel, _) = np.asarray(lite0(pixels)).mean((1, 2)), logits_of(assembled)
    both, all_three = np.asarray(with_features(assembled)(pixels)), np.asarray(with_head_inputs(assembled)(pixels))
    np.testing.assert_allclose(both, np.c_[assembled(pixels), last], rtol=1e-4, atol=1e-5)
    assert all_three.shape == (5, 3 + 1280 + len(kernel))
    np.testing.assert_allclose(all_three[:, : 3 + 1280], both, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(all_three[:, -1280:], last, rtol=1e-4, atol=1e-5)


def test_a_class_more_leaves_the_logits_of_the_others(assembled, pixels):
    kernel, bias = logits_of(assembled)
    wider = with_class(assembled, 2 * kernel[:, 0], 0.5)
    before, after = np.asarray(assembled(pixels)), np.asarray(wider(pixels))
    np.testing.assert_allclose(after[:, :3], before, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[:, 3], 2 * (before[:, 0] - bias[0]) + 0.5, rtol=1e-4, atol=1e-5)
    assert wider.name == assembled.name
    assert wider.get_layer("logits").compute_dtype == "float32"


def test_a_stage_is_a_block_without_its_letter(lite0):
    stages = {stage_of(layer) for layer in lite0.layers if layer.weights}
    assert stages == {"stem", *(f"block{number}" for number in range(1, 8)), "top"}
