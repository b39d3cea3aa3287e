"""A training step: trained layers, loss, metrics and compilation."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

from efficientnet_finetuning.device import use_jit
from efficientnet_finetuning.models.folding import fold
from efficientnet_finetuning.models.freezing import unfreeze
from efficientnet_finetuning.models.heads import with_rates
from efficientnet_finetuning.models.inference import predict
from efficientnet_finetuning.parameters import SettledTrainingParameters
from efficientnet_finetuning.training.optimizers import Schedule, build_optimizer

logger = logging.getLogger(__name__)

# Largest number of images for measuring the initial confidence.
_SHOWN = 256


def prepare_network(model: keras.Model, backbone: str, parameters: SettledTrainingParameters) -> keras.Model:
    """A copy of a network for training: dropout rates set, lower blocks frozen, frozen BatchNorm folded."""
    network = with_rates(model, parameters.drop_connect_rate, parameters.head_dropout)
    trainable, frozen = unfreeze(network, backbone, parameters.unfreeze_from, parameters.freeze_batch_norm)
    logger.debug("%s parameters are trained, %s stay frozen", f"{trainable:,}", f"{frozen:,}")
    if parameters.freeze_batch_norm:
        network = fold(network)
    return network


def flatten_logits(network: keras.Model, train: tuple[np.ndarray, np.ndarray], start_loss: float | None) -> None:
    """Scale the last layer of ``network`` down until the training loss is a share of the loss of random guessing.

    The predictions stay the same; only their confidence falls. If the loss is high enough already, nothing changes.
    ``None`` as the share changes nothing either.
    """
    if start_loss is None:
        return
    images, labels = (array[:: -(-len(array) // _SHOWN)] for array in train)
    logits = predict(network, images, 64, "start")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    wanted = start_loss * math.log(logits.shape[1])
    # With growing scale, the loss falls from that of guessing and may rise again. The first match counts.
    scales = np.geomspace(1e-3, 1, 200)
    scale = next((scale for scale in scales if float(loss(labels.astype("float32"), scale * logits)) <= wanted), 1.0)
    head = network.get_layer("logits")
    head.set_weights([scale * weights for weights in head.get_weights()])
    logger.debug("The initial logits are multiplied by %.3f, so that the network still learns from its images", scale)


class Accuracy(keras.metrics.CategoricalAccuracy):
    """Top-1 accuracy without the blank images that fill batches up."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred, keras.ops.max(y_true, axis=-1))


class MeanLoss(keras.metrics.Mean):
    """The mean loss per image, with class weights and without the blank images that Keras' own loss counts.

    It replaces Keras' own loss in the logs, because it has the same name.
    """

    def __init__(self, label_smoothing: float, **options: str) -> None:
        super().__init__(**options)
        self._label_smoothing = label_smoothing

    def update_state(self, y_true, y_pred, sample_weight=None):
        losses = keras.losses.categorical_crossentropy(
            y_true, y_pred, from_logits=True, label_smoothing=self._label_smoothing
        )
        if sample_weight is not None:
            losses = losses * keras.ops.reshape(sample_weight, keras.ops.shape(losses))
        # With these weights, the mean over all rows is the mean over the images.
        super().update_state(keras.ops.mean(losses), keras.ops.sum(keras.ops.max(y_true, axis=-1)))


def compile_for(network: keras.Model, parameters: SettledTrainingParameters, schedule: Schedule) -> None:
    """Compile a network for the parameters, with a learning-rate schedule.

    Several steps per execution are not faster (four: 0.97 × the speed; Lite0, 224 px, two cores).
    """
    network.compile(
        optimizer=build_optimizer(network, parameters, schedule),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=parameters.label_smoothing),
        metrics=[Accuracy(name="accuracy")],
        weighted_metrics=[MeanLoss(parameters.label_smoothing, name="loss")],
        jit_compile=use_jit(),
    )


@contextmanager
def unchanged(network: keras.Model) -> Iterator[None]:
    """A ``with`` block after which the variables of a compiled network and its optimizer are restored."""
    variables = [*network.variables, *network.optimizer.variables]
    before = [np.array(variable) for variable in variables]
    yield
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    network.reset_metrics()
