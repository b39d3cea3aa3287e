import keras

from efficientnet_finetuning.models.architectures import ARCHITECTURES
from efficientnet_finetuning.models.efficientnet_lite import efficientnet_lite


def built_blocks(model: keras.Model) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer.name.split("_")[0] for layer in model.layers if layer.weights))


def test_the_table_names_the_blocks_of_lite_networks_as_they_are_built(lite0):
    assert built_blocks(lite0) == ARCHITECTURES["EfficientNetLite0"].blocks
    assert built_blocks(efficientnet_lite("EfficientNetLite1", 32)) == ARCHITECTURES["EfficientNetLite1"].blocks


def test_every_backbone_has_a_native_resolution_that_grows_with_the_network():
    for family in ("EfficientNetB", "EfficientNetV2B", "EfficientNetLite"):
        resolutions = [
            architecture.resolution for name, architecture in ARCHITECTURES.items() if name.startswith(family)
        ]
        assert resolutions[0] == 224
        assert resolutions == sorted(set(resolutions))


def test_every_backbone_that_is_no_lite_one_is_known_to_keras():
    names = [name for name in ARCHITECTURES if "Lite" not in name]
    assert len(names) == 15
    assert [name for name in names if not hasattr(keras.applications, name)] == []
