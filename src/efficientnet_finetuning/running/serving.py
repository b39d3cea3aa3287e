r"""The champion behind MLflow's scoring server: photographs in base64 go in, classes with probabilities come out.

MLflow makes the model by running this file ("models from code"), so nothing is pickled. The package's code travels with
the model: it is found there first, and the project need not be installed where the model is served. The libraries are
those of the serving environment: with ``--env-manager local`` what is installed, else what the model's
``requirements.txt`` names.

A request to a server that `mlflow models serve` has started on port 5001::

    echo "{\"dataframe_split\": {\"columns\": [\"image\"], \"data\": [[\"$(base64 -w0 photo.jpg)\"]]}}" |
      curl -s http://127.0.0.1:5001/invocations -H "Content-Type: application/json" -d @-

It asks for no password: leave it on 127.0.0.1, or put a proxy in front of it that limits the size of requests.
The server reads a request as a whole before it gets here, so the bounds below protect the decoder, not the network.
"""

import base64
from io import BytesIO
from threading import Lock
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from PIL import Image

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.data.decode import UNREADABLE, open_image, why_unfit
from efficientnet_finetuning.data.encoded import EncodedImage

ARTIFACT = "champion"
MAX_IMAGES = 64
# Of base64, in millions of characters.
MAX_MEGABYTES = 20
MAX_MEGAPIXELS = 50
_TOP = 5


class Served(PythonModel):
    """A classifier that takes a table with a column ``image`` and gives that of ``Classifier.predict``, without ids."""

    def load_context(self, context: PythonModelContext) -> None:
        self._classifier = Classifier.load(context.artifacts[ARTIFACT])
        self._lock = Lock()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify the photographs of one request, while others wait: it uses all cores, and memory is bounded.

        Returns:
            A row a photograph. One that cannot be read has its ``reason``, empty classes, and ``None`` for
            probabilities.

        Raises:
            MlflowException: there are too many photographs, or none; the server answers with status 400.
        """
        if not 1 <= len(model_input) <= MAX_IMAGES:
            raise MlflowException(
                f"The request holds {len(model_input)} images. Send 1 to {MAX_IMAGES} at a time.",
                INVALID_PARAMETER_VALUE,
            )
        with self._lock:
            contents, refusals = zip(*map(_decode, model_input["image"]), strict=True)
            photographs = [EncodedImage(str(row), content) for row, content in enumerate(contents)]
            answers = self._classifier.predict(photographs, _TOP, MAX_IMAGES).drop(columns="id")
        answers["reason"] = [ours or its for ours, its in zip(refusals, answers["reason"], strict=True)]
        return answers.astype(object).where(answers.notna(), None)  # JSON has no word for "not a number"


def _decode(text: Any) -> tuple[bytes, str]:
    """The bytes of a photograph, or none and the reason why it is not looked at."""
    if not isinstance(text, str):
        return b"", "undecodable: no text"
    if len(text) > MAX_MEGABYTES * 1e6:
        return b"", f"too_large: {len(text) / 1e6:.0f} MB of base64, where {MAX_MEGABYTES} MB are taken"
    try:
        content = base64.b64decode("".join(text.split()), validate=True)  # encoders break lines
    except ValueError:
        return b"", "undecodable: no base64"
    reason = _why_too_large(content)
    return (b"" if reason else content), reason


def _why_too_large(content: bytes) -> str:
    try:
        with open_image(BytesIO(content)) as image:
            return why_unfit(image.size, MAX_MEGAPIXELS)
    except UNREADABLE:
        return ""  # the classifier says what is wrong with it


def signature(num_classes: int) -> ModelSignature:
    """What goes in and what comes out."""
    columns: list[ColSpec | TensorSpec] = []
    for place in range(1, min(_TOP, num_classes) + 1):
        columns.append(ColSpec(DataType.string, f"class_{place}"))
        columns.append(ColSpec(DataType.double, f"probability_{place}", required=False))
    columns.append(ColSpec(DataType.double, "distance", required=False))
    columns += [ColSpec(DataType.boolean, "answered"), ColSpec(DataType.string, "reason")]
    return ModelSignature(Schema([ColSpec(DataType.string, "image")]), Schema(columns))


def example() -> pd.DataFrame:
    """A request that shows the form: a grey square, since nobody's photograph should travel with a model."""
    file = BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})


mlflow.models.set_model(Served())
