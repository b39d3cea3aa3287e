r"""The champion for MLflow's scoring server: photographs in base64 in, classes with probabilities out.

MLflow creates the model by running this file ("models from code"), so nothing is pickled. The model contains this
package's code, so the project need not be installed on the server. The libraries come from the serving environment: the
installed ones with ``--env-manager local``, else those in the model's ``requirements.txt``.

A request to a server that `mlflow models serve` has started on port 5001::

    echo "{\"dataframe_split\": {\"columns\": [\"image\"], \"data\": [[\"$(base64 -w0 photo.jpg)\"]]}}" |
      curl -s http://127.0.0.1:5001/invocations -H "Content-Type: application/json" -d @-

The server has no password: keep it on 127.0.0.1, or put it behind a proxy that limits the size of requests. It reads
each request completely, so the limits below protect only the decoder.
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
# Millions of base64 characters.
MAX_MEGABYTES = 20
MAX_MEGAPIXELS = 50
_TOP = 5


class Served(PythonModel):
    """A model that takes a table with a column ``image`` and returns ``Classifier.predict`` without ids."""

    def load_context(self, context: PythonModelContext) -> None:
        self._classifier = Classifier.load(context.artifacts[ARTIFACT])
        self._lock = Lock()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify the photographs of one request. Requests wait for each other, since each uses all cores.

        Returns:
            One row per photograph. An unreadable one has a ``reason``, empty classes and ``None`` as probabilities.

        Raises:
            MlflowException: there are no photographs or too many; the server answers with status 400.
        """
        if not 1 <= len(model_input) <= MAX_IMAGES:
            raise MlflowException(
                f"The request has {len(model_input)} images. Send 1 to {MAX_IMAGES} at a time.", INVALID_PARAMETER_VALUE
            )
        with self._lock:
            contents, refusals = zip(*map(_decode, model_input["image"]), strict=True)
            photographs = [EncodedImage(str(row), content) for row, content in enumerate(contents)]
            answers = self._classifier.predict(photographs, _TOP, MAX_IMAGES).drop(columns="id")
        answers["reason"] = [ours or its for ours, its in zip(refusals, answers["reason"], strict=True)]
        return answers.astype(object).where(answers.notna(), None)  # JSON has no NaN


def _decode(text: Any) -> tuple[bytes, str]:
    """The content of a photograph, or no content and the reason why it is refused."""
    if not isinstance(text, str):
        return b"", "undecodable: the image is not a string"
    if len(text) > MAX_MEGABYTES * 1e6:
        return b"", f"too_large: {len(text) / 1e6:.0f} MB of base64; the limit is {MAX_MEGABYTES} MB"
    try:
        content = base64.b64decode("".join(text.split()), validate=True)  # encoders break lines
    except ValueError:
        return b"", "undecodable: the image is not base64"
    reason = _why_too_large(content)
    return (b"" if reason else content), reason


def _why_too_large(content: bytes) -> str:
    try:
        with open_image(BytesIO(content)) as image:
            return why_unfit(image.size, MAX_MEGAPIXELS)
    except UNREADABLE:
        return ""  # the classifier says what is wrong with it


def signature(num_classes: int) -> ModelSignature:
    """Input and output columns of the model."""
    columns: list[ColSpec | TensorSpec] = []
    for place in range(1, min(_TOP, num_classes) + 1):
        columns.append(ColSpec(DataType.string, f"class_{place}"))
        columns.append(ColSpec(DataType.double, f"probability_{place}", required=False))
    columns.append(ColSpec(DataType.double, "distance", required=False))
    columns += [ColSpec(DataType.boolean, "answered"), ColSpec(DataType.string, "reason")]
    return ModelSignature(Schema([ColSpec(DataType.string, "image")]), Schema(columns))


def example() -> pd.DataFrame:
    """An example request with a grey square, so that no photograph is published with a model."""
    file = BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})


mlflow.models.set_model(Served())
