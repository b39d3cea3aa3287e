"""The report: one HTML file that explains a run, and needs nothing but itself."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from efficientnet_finetuning.evaluation.comparison import wilson_interval
from efficientnet_finetuning.evaluation.metrics import confused_pairs
from efficientnet_finetuning.evaluation.pictures import disagreements, worth_a_look

_TEMPLATE = Path(__file__).with_suffix(".html")
_NUM_PAIRS = 20
_NUMBER = re.compile(r"^[<–+\-\d][\d., %to+\-]*$")


@dataclass(frozen=True)
class Results:
    """All that a report tells, regime by regime in the order of the ladder.

    Attributes:
        comparison: of :func:`~efficientnet_finetuning.evaluation.comparison.compare_regimes`.
        verdict: of :func:`~efficientnet_finetuning.evaluation.verdict.judge`.
        change: of :func:`~efficientnet_finetuning.evaluation.change.change_since`.
        audit: of :func:`~efficientnet_finetuning.data.audit.audit`.
        metrics: of :func:`~efficientnet_finetuning.evaluation.metrics.classification_metrics`, with ``threshold``.
        predictions: of :func:`~efficientnet_finetuning.evaluation.metrics.predictions_table`.
        histories: with ``seconds``, ``images``, ``peak_memory_gb`` and ``device``.
        costs: ``seconds``, ``peak_memory_gb`` and ``device`` by node. A stage that is missing is left out.
        model_cost: of :func:`~efficientnet_finetuning.models.cost.cost_of`.
        review: what the pipeline ``review`` has found, as JSON by name: ``label_review``, ``weak_spots``, ``shortcuts``
            and ``more_images``; empty where the frozen backbone's features are not there to find it by.
        figures: PNG files by name. One that is missing is left out.
        seed: of what is drawn at random.
    """

    comparison: pd.DataFrame
    verdict: Mapping[str, Any]
    change: Mapping[str, Any]
    audit: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    predictions: Mapping[str, pd.DataFrame]
    histories: Mapping[str, pd.DataFrame]
    costs: Mapping[str, Mapping[str, Any]]
    model_cost: Mapping[str, float]
    review: Mapping[str, Mapping[str, Any]]
    figures: Mapping[str, bytes]
    seed: int


@dataclass(frozen=True)
class _Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def classes(self) -> list[str]:
        """Of the columns: ``n`` for numbers, which line up on the right."""
        return [
            "n" if all(_NUMBER.match(row[index]) for row in self.rows) else "" for index in range(len(self.columns))
        ]


def render_report(results: Results) -> str:
    """The report as HTML with its pictures inside; it loads nothing from anywhere."""
    champion = results.verdict["champion"]
    metrics = results.metrics[champion]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "base64": lambda content: base64.b64encode(content).decode(),
    }
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        verdict=results.verdict,
        change=results.change["words"] if results.change["all"] else "",
        champion=metrics,
        notes=_notes(results),
        comparison=_comparison(results.comparison),
        steps=_steps(results.verdict["steps"]),
        pairs=_pairs(results.predictions[champion]),
        clustered=_clustered(len(metrics["per_class"])),
        classes=_classes(metrics["per_class"]),
        two_classes=_two_classes(metrics["per_class"]),
        gallery=_gallery(results.predictions[champion]),
        disagreements=_disagreements(results),
        threshold=_threshold(metrics["threshold"]),
        calibration=_calibration(results.metrics),
        stages=_stages(results),
        model_cost=_model_cost(results.model_cost),
        data=_data(results.audit, results.review),
        labels=_labels(results.review),
        weak_spots=results.review["weak_spots"]["words"] if results.review else [],
        has_weak_spots=bool(results.review and results.review["weak_spots"]["spots"]),
        figures=results.figures,
    )


def _percent(share: Any) -> str:
    return "–" if share is None or pd.isna(share) else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> _Table:
    return _Table(columns, [[str(value) for value in row] for row in rows])


def _notes(results: Results) -> list[str]:
    # Where pretrained weights have seen the test images, the scores must not stand there without that word.
    notes = [warning for warning in results.audit["warnings"] if "ImageNet" in warning]
    champion = results.metrics[results.verdict["champion"]]
    if champion.get("flip"):
        notes.append("Every image was seen twice, as it is and mirrored, and the logits averaged (evaluation.flip).")
    supports = [row["support"] for row in champion["per_class"].values()]
    if max(supports) >= 2 * max(min(supports), 1):
        notes.append(
            f"The classes are uneven, {min(supports)} to {max(supports)} test images: balanced accuracy, where each "
            f"class counts the same, is {_percent(champion['balanced_accuracy'])}."
        )
    return notes


def _comparison(comparison: pd.DataFrame) -> _Table:
    return _table(
        ("regime", "top-1", "95 % interval", "top-5", "loss, nats", "training, s"),
        (
            (
                row["regime"],
                _percent(row["top1"]),
                f"{100 * row['top1_low']:.1f} to {100 * row['top1_high']:.1f}",
                _percent(row["top5"]),
                f"{row['loss']:.3f}",
                f"{row['training_seconds']:.0f}",
            )
            for row in comparison.to_dict("records")
        ),
    )


def _steps(steps: Iterable[Mapping[str, Any]]) -> _Table:
    return _table(
        ("step", "points", "95 % interval", "right only after", "right only before", "p"),
        (
            (
                f"{step['lower']} → {step['upper']}",
                f"{100 * step['difference']:+.1f}",
                f"{100 * step['low']:+.1f} to {100 * step['high']:+.1f}",
                step["only_upper"],
                step["only_lower"],
                f"{step['p_value']:.3f}" if step["p_value"] >= 0.001 else "< 0.001",
            )
            for step in steps
        ),
    )


def _pairs(predictions: pd.DataFrame) -> _Table:
    pairs = confused_pairs(predictions, _NUM_PAIRS)
    return _table(
        ("true", "taken for", "images", "of the true class"),
        ((*row[:3], _percent(row[3])) for row in pairs.to_numpy().tolist()),
    )


def _clustered(num_classes: int) -> str:
    return "" if num_classes <= 20 else ", in an order that puts classes that are confused beside each other"


def _two_classes(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    if len(per_class) != 2:
        return ""
    (negative, specificity), (positive, sensitivity) = ((name, row["recall"]) for name, row in per_class.items())
    return (
        f"Sensitivity for {positive} {_percent(sensitivity)}, specificity {_percent(specificity)}: the shares of "
        f"{positive} and of {negative} that are recognised."
    )


def _classes(per_class: Mapping[str, Mapping[str, Any]]) -> _Table:
    worst_first = sorted(per_class.items(), key=lambda item: (item[1]["f1"] is None, item[1]["f1"]))
    return _table(
        ("class", "precision", "recall", "F1", "area under ROC", "average precision", "test images"),
        (
            (
                name,
                *(_percent(row[key]) for key in ("precision", "recall", "f1")),
                *(_number(row[key]) for key in ("roc_auc", "average_precision")),
                row["support"],
            )
            for name, row in worst_first
        ),
    )


def _gallery(predictions: pd.DataFrame) -> _Table:
    return _table(
        ("id", "true", "predicted", "confidence"),
        (
            (row["id"], row["true"], row["predicted"], _percent(row["confidence"]))
            for _, row in worth_a_look(predictions).iterrows()
        ),
    )


def _disagreements(results: Results) -> _Table:
    rows = disagreements(results.predictions, results.seed).drop(columns="row")
    return _table(list(rows.columns), rows.to_numpy().tolist())


def _threshold(threshold: Mapping[str, Any]) -> str:
    if threshold["confidence"] is None:
        return (
            f"No confidence is high enough for {_percent(threshold['precision'])} of the answers to be right on "
            f"{threshold['held_out']['num_images']:,} images held out from training."
        )
    return (
        f"To be right in {_percent(threshold['precision'])} of the answers, answer where the confidence is at least "
        f"{threshold['confidence']:.3f}. This was chosen on images held out from training: it answers "
        f"{_answers(threshold['held_out'])}. Of the test images it answers {_answers(threshold['test'])}."
    )


def _answers(counts: Mapping[str, int]) -> str:
    told = f"{counts['answered']:,} of {counts['num_images']:,}"
    if not counts["answered"]:
        return told
    low, high = wilson_interval(counts["right"], counts["answered"])
    return f"{told}, {counts['right']:,} of them right (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"


def _calibration(metrics: Mapping[str, Mapping[str, Any]]) -> _Table:
    return _table(
        ("regime", "without temperature", "with", "temperature"),
        (
            (
                regime,
                _percent(result["calibration_error_raw"]),
                _percent(result["calibration_error"]),
                f"{result['temperature']:.2f}",
            )
            for regime, result in metrics.items()
        ),
    )


def _stages(results: Results) -> _Table:
    """What each stage has cost: of trainings by their history, which also counts what an interrupted run had done."""
    classes = results.audit["classes"].values()
    judged = sum(counts["validation"] + counts["test"] for counts in classes)
    stages = [
        ("looking at every image", "ingestion.look_at_images", results.audit["images"]),
        ("preparing the images", "preprocessing.prepare_images", results.audit["used"]),
    ]
    evaluations = [(f"evaluating {name}", f"{name}.evaluate_classifier", judged) for name in results.histories]

    def measured(stage: str, node: str, images: int) -> Iterator[tuple[str, ...]]:
        if node in results.costs:
            cost = results.costs[node]
            yield _stage(stage, cost["seconds"], images, cost["peak_memory_gb"], cost["device"])

    def trained(regime: str, history: pd.DataFrame) -> tuple[str, ...]:
        seconds, images = history["seconds"].sum(), history["images"].sum()
        return _stage(
            f"training {regime}", seconds, images, history["peak_memory_gb"].max(), history["device"].iloc[-1]
        )

    return _table(
        ("stage", "seconds", "images/s", "peak memory, GB", "device"),
        chain(
            *(measured(*stage) for stage in stages),
            (trained(*history) for history in results.histories.items()),
            *(measured(*evaluation) for evaluation in evaluations),
        ),
    )


def _stage(name: str, seconds: float, images: float, peak_memory_gb: float, device: str) -> tuple[str, ...]:
    speed = images / seconds
    # A few photographs on a busy machine are slower than one a second.
    return name, f"{seconds:.1f}", f"{speed:.0f}" if speed >= 1 else f"{speed:.2g}", f"{peak_memory_gb:.1f}", device


def _model_cost(cost: Mapping[str, float]) -> _Table:
    return _table(
        ("parameters", "GFLOPs an image", "file, MB", "ms an image, one by one", "ms an image, 64 at once"),
        [
            (
                f"{cost['parameters']:,}",
                f"{cost['gflops']:.2f}",
                f"{cost['file_megabytes']:.1f}",
                f"{cost['milliseconds_per_image_batch_1']:.1f}",
                f"{cost['milliseconds_per_image_batch_64']:.1f}",
            )
        ],
    )


def _labels(review: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to look at in the data; ``None`` where nobody has looked."""
    if not review:
        return None
    found = review["label_review"]
    kinds = [(row["kind"].replace("_", " "), row["split"], row["images"]) for row in found["kinds"]]
    doubted = [(row["given"], row["suggested"], row["images"]) for row in found["pairs"][:_NUM_PAIRS]]
    quality = [(row["class"], _percent(row["quality"]), row["images"]) for row in found["classes"]]
    alike = [(row["first"], row["second"], row["images"]) for row in found["overlapping_classes"]]
    return {
        "words": found["words"],
        "notes": found["notes"],
        "kinds": _table(("what", "split", "images"), kinds),
        "pairs": _table(("given", "looks like", "images"), doubted),
        "classes": _table(("class", "labels that the heads agree with", "images"), quality),
        "alike": _table(("class", "and", "images"), alike),
        "more_images": review["more_images"]["words"],
    }


def _data(audit: Mapping[str, Any], review: Mapping[str, Any]) -> dict[str, Any]:
    shortcuts = review["shortcuts"]["warnings"] if review else []
    return {
        "source": audit["source"],
        "used": f"{audit['used']:,}",
        "images": f"{audit['images']:,}",
        "num_classes": len(audit["classes"]),
        "warnings": [*audit["warnings"], *shortcuts],
        "shortcuts": [words for words in review["shortcuts"]["words"] if words not in shortcuts] if review else [],
    }
