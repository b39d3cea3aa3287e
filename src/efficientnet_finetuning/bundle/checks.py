"""Compare exported classifiers with the original, run as other programs run them."""

import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from efficientnet_finetuning.bundle import run_export
from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.formats import FILES, write_files
from efficientnet_finetuning.bundle.photographs import Reader
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.device import seconds_of
from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.evaluation.verdict import paired_difference

# Tolerances: of probabilities for float32 formats, and of the accuracy for all. Two lost test images may be chance.
_PROBABILITY_TOLERANCE = 1e-4
_ACCURACY_TOLERANCE = 0.01
_EXACT = ("saved_model", "litert", "onnx")
_SQUARES_ONLY = ("litert_int8",)
_NUM_TIMED = 20


class Tried(NamedTuple):
    """Probabilities ``(N, num_classes)`` of an exported classifier, and the seconds of each prediction."""

    probabilities: np.ndarray
    seconds: np.ndarray


def check_exports(
    files: Mapping[str, bytes], classifier: Classifier, test: Examples, photographs: Sequence[np.ndarray]
) -> pd.DataFrame:
    """Run each format on test images, in a separate process that imports nothing of this project.

    Args:
        files: of :func:`~efficientnet_finetuning.bundle.formats.convert`.
        classifier: the original.
        test: prepared images with labels and ids.
        photographs: at least one original photograph, uint8 ``(height, width, 3)``, upright RGB, to test the resize.

    Returns:
        A row per format: ``format``, ``file``, ``megabytes``, ``images``; for the test images the
        ``largest_difference`` of a probability and its place (``at_image``, ``at_class``), ``agreement`` of the
        predicted classes (0–1), ``accuracy``, ``accuracy_change`` with its 95 % interval ``low``, ``high`` and
        ``p_value`` (McNemar); for the photographs ``difference_with_resize``, missing if the format takes only squares;
        ``milliseconds`` per image and ``times_keras``, their ratio to Keras'; ``fault``: empty, or why the format is
        unusable.
    """
    squares, labels = test.arrays
    answers, of_photographs = (
        np.exp(log_softmax(classifier.predict_logits(images), classifier.temperature))
        for images in (squares, Reader(photographs, classifier))
    )
    keras_milliseconds = 1000 * np.median(seconds_of(lambda: classifier.predict_logits(squares[:1]), _NUM_TIMED))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_files(files, Path(folder))
        for name, file in FILES.items():
            if not (Path(folder) / file).exists():
                continue
            any_size = name not in _SQUARES_ONLY
            given = [*squares, *photographs] if any_size else squares
            tried = run(Path(folder) / file, given)
            size = sum(len(content) for path, content in files.items() if path == file or path.startswith(f"{file}/"))
            row: dict[str, Any] = {"format": name, "file": file, "megabytes": size / 1e6, "images": len(squares)}
            row |= _compare(tried.probabilities[: len(squares)], answers, labels, test.ids, classifier)
            with_resize = tried.probabilities[len(squares) :] - of_photographs if any_size else np.array(np.nan)
            row["difference_with_resize"] = float(np.abs(with_resize).max())
            row["milliseconds"] = 1000 * float(np.median(tried.seconds[: len(squares)]))
            row["times_keras"] = row["milliseconds"] / keras_milliseconds
            rows.append(row | {"fault": _fault(row)})
    return pd.DataFrame(rows)


def format_checks(checks: pd.DataFrame) -> str:
    """The table of :func:`check_exports` for the terminal."""
    shown = checks[
        ["format", "megabytes", "largest_difference", "agreement", "accuracy", "milliseconds", "times_keras"]
    ]
    return "exports on the test images:\n" + shown.to_string(index=False, float_format=lambda value: f"{value:.3g}")


def run(file: Path, photographs: Iterable[np.ndarray]) -> Tried:
    """Predict photographs, uint8 ``(height, width, 3)``, with an exported classifier, in a separate process.

    Raises ``RuntimeError`` with the last line of the process if it fails.
    """
    with tempfile.TemporaryFile() as stream:
        for photograph in photographs:
            stream.write(struct.pack("<II", *photograph.shape[:2]))
            stream.write(np.ascontiguousarray(photograph).data)
        stream.seek(0)
        # -P keeps modules beside the script from shadowing libraries.
        command = [sys.executable, "-P", run_export.__file__, str(file)]
        with tempfile.TemporaryFile() as answers:
            result = subprocess.run(command, stdin=stream, stdout=answers, stderr=subprocess.PIPE, check=False)
            if result.returncode:
                said = result.stderr.decode(errors="replace").strip().splitlines()
                raise RuntimeError(f"{file.name} cannot be run: {said[-1] if said else 'it printed no error'}")
            answers.seek(0)
            table: np.ndarray = np.lib.format.read_array(answers, allow_pickle=False)
    return Tried(table[:, :-1], table[:, -1])


def _compare(
    got: np.ndarray, expected: np.ndarray, labels: np.ndarray, ids: np.ndarray, classifier: Classifier
) -> dict[str, Any]:
    differences = np.abs(got - expected)
    image, label = np.unravel_index(int(differences.argmax()), differences.shape)
    targets = labels.argmax(1)
    before, after = expected.argmax(1) == targets, got.argmax(1) == targets
    change = paired_difference(before, after)
    return {
        "largest_difference": float(differences.max()),
        "at_image": str(ids[image]),
        "at_class": classifier.class_names[label],
        "agreement": float((got.argmax(1) == expected.argmax(1)).mean()),
        "accuracy": float(after.mean()),
        "accuracy_change": change["difference"],
        "low": change["low"],
        "high": change["high"],
        "p_value": change["p_value"],
    }


def _fault(row: Mapping[str, Any]) -> str:
    if row["format"] in _EXACT and row["largest_difference"] > _PROBABILITY_TOLERANCE:
        return (
            f"the probability of {row['at_class']} for {row['at_image']} differs by {row['largest_difference']:.1e}, "
            f"more than {_PROBABILITY_TOLERANCE:.0e}"
        )
    if row["accuracy_change"] < -max(_ACCURACY_TOLERANCE, 2.5 / row["images"]):
        return (
            f"its accuracy on the test images is {-100 * row['accuracy_change']:.1f} points lower; the largest "
            f"difference is at {row['at_image']}, {row['at_class']}"
        )
    return ""
