"""A training step: what it trains, what it minimizes, how it is compiled, what it costs."""

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

# Images, at most, that show how sure a start is.
_SHOWN = 256


def prepare_network(model: keras.Model, backbone: str, parameters: SettledTrainingParameters) -> keras.Model:
    """A copy of a classifier's network as it is trained: with its rates, frozen below, frozen BatchNorm folded."""
    network = with_rates(model, parameters.drop_connect_rate, parameters.head_dropout)
    trainable, frozen = unfreeze(network, backbone, parameters.unfreeze_from, parameters.freeze_batch_norm)
    logger.debug("%s parameters are trained, %s stay frozen", f"{trainable:,}", f"{frozen:,}")
    if parameters.freeze_batch_norm:
        network = fold(network)
    return network


def flatten_logits(network: keras.Model, train: tuple[np.ndarray, np.ndarray], start_loss: float | None) -> None:
    """Scale the last layer down until the training loss is a share of guessing's.

    What the network predicts does not change, only how sure it is. A network that is less sure already stays.

    Args:
        network: from pixels to logits, changed in place.
        train: images and one-hot labels; some of them are looked at.
        start_loss: share of the loss of guessing, in 0–1; ``None`` leaves the network as it is.
    """
    if start_loss is None:
        return
    images, labels = (array[:: -(-len(array) // _SHOWN)] for array in train)
    logits = predict(network, images, 64, "start")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    wanted = start_loss * math.log(logits.shape[1])
    # The loss falls from guessing's, at 0, until the logits are too sure of what is wrong: the first scale counts.
    scales = np.geomspace(1e-3, 1, 200)
    scale = next((scale for scale in scales if float(loss(labels.astype("float32"), scale * logits)) <= wanted), 1.0)
    head = network.get_layer("logits")
    head.set_weights([scale * weights for weights in head.get_weights()])
    logger.debug("The start's logits are multiplied by %.3f: so sure of its images it would learn little", scale)


class Accuracy(keras.metrics.CategoricalAccuracy):
    """Top-1 over the images that have a label: blank ones, which fill batches up, do not count."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred, keras.ops.max(y_true, axis=-1))


class MeanLoss(keras.metrics.Mean):
    """The mean loss of an image, class weights included; Keras' own counts a batch's blank images, too.

    It takes the place of Keras' own in the logs, since it has the same name.
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
        # The weights make the mean over all rows that over the images.
        super().update_state(keras.ops.mean(losses), keras.ops.sum(keras.ops.max(y_true, axis=-1)))


def compile_for(
    network: keras.Model,
    parameters: SettledTrainingParameters,
    schedule: Schedule,
) -> None:
    """Compile a network as the parameters say, with a schedule of the learning rate.

    One step an execution: four at once brought nothing (0.97 × the speed; Lite0, 224 px, two cores).
    """
    network.compile(
        optimizer=build_optimizer(network, parameters, schedule),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=parameters.label_smoothing),
        metrics=[Accuracy(name="accuracy")],
        weighted_metrics=[MeanLoss(parameters.label_smoothing, name="loss")],
        jit_compile=use_jit(),
    )


def class_weights(labels: np.ndarray, class_weight: str) -> dict[int, float] | None:
    """How much an image of each class counts in the loss.

    Args:
        labels: one-hot ``(N, num_classes)``.
        class_weight: ``none``, or ``balanced``: inversely to the class' frequency, one on average over all images.

    Returns:
        Weights by label, ``None`` for equal ones.
    """
    if class_weight == "none":
        return None
    counts = labels.sum(axis=0, dtype=np.int64)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    logger.debug("class weights: balanced, %.2g to %.2g", weights.min(), weights.max())
    return {label: float(weight) for label, weight in enumerate(weights)}


@contextmanager
def unchanged(network: keras.Model) -> Iterator[None]:
    """A ``with`` block after which a compiled network's and its optimizer's variables are what they were."""
    variables = [*network.variables, *network.optimizer.variables]
    before = [np.array(variable) for variable in variables]
    yield
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    network.reset_metrics()
