import keras
import pytest

from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.cost import cost_of


def test_multiplications_of_a_small_network_agree_with_the_hand():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, 2, "same"),  # 4 × 4 × 4 outputs of 27
            keras.layers.DepthwiseConv2D(3, 1, "same"),  # 4 × 4 × 4 outputs of 9
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5),  # 20
        ]
    )
    cost = cost_of(model)
    assert cost["gflops"] == pytest.approx(2 * (64 * 27 + 64 * 9 + 20) / 1e9)
    assert cost["parameters"] == 3 * 9 * 4 + 4 + 9 * 4 + 4 + 4 * 5 + 5
    assert cost["file_megabytes"] > 0
    assert 0 < cost["milliseconds_per_image_batch_64"] < cost["milliseconds_per_image_batch_1"]


@pytest.mark.slow
def test_lite0_costs_what_its_authors_say():
    """Its authors: 407 million multiplications, 4.7 million parameters, of which 1.3 are its 1,000 classes'."""
    cost = cost_of(build_backbone("EfficientNetLite0", 224, "none"))
    assert cost["gflops"] / 2 == pytest.approx(0.407 - 0.00128, rel=0.06)
    assert cost["parameters"] == pytest.approx(4.65e6 - 1.281e6, rel=0.02)
