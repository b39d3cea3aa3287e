"""The report: one HTML file that explains a run and works offline."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from PIL import Image

from efficientnet_finetuning.errors import percent
from efficientnet_finetuning.evaluation.comparison import wilson_interval
from efficientnet_finetuning.evaluation.metrics import confused_pairs, confusion
from efficientnet_finetuning.evaluation.pictures import disagreements, fit_name, worth_a_look
from efficientnet_finetuning.evaluation.thumbnails import as_webp, examples_of_classes, thumbnails
from efficientnet_finetuning.storage import time_of

_TEMPLATE = Path(__file__).with_suffix(".html")
_NUM_PAIRS = 20
# Largest number of classes with a table of all confusions.
_FEW_CLASSES = 20
_REGIMES = {
    "baseline": "a network trained from scratch",
    "transfer": "a new head on a frozen, pretrained backbone",
    "finetune": "a pretrained network, fine-tuned on these images",
    "seed_frozen": "the Keras example: a new head on a frozen backbone",
    "seed_finetune": "the Keras example: its last block fine-tuned",
}
_NUMBER = re.compile(r"^[<–+\-\d][\d., %to+\-]*$")


@dataclass(frozen=True)
class Results:
    """The contents of a report, by regime where there are several.

    Attributes:
        comparison: of :func:`~efficientnet_finetuning.evaluation.comparison.compare_regimes`.
        verdict: of :func:`~efficientnet_finetuning.evaluation.verdict.judge`.
        change: of :func:`~efficientnet_finetuning.evaluation.change.change_since`, with ``differences``: sentences
            about what differs between this run and the run before.
        audit: of :func:`~efficientnet_finetuning.data.audit.audit`.
        metrics: of :func:`~efficientnet_finetuning.evaluation.metrics.classification_metrics`, with ``threshold``.
        predictions: of :func:`~efficientnet_finetuning.evaluation.metrics.predictions_table`.
        images: the test images, uint8 ``(N, size, size, 3)``.
        histories: with ``seconds``, ``images``, ``peak_memory_gb`` and ``device``.
        costs: ``seconds``, ``peak_memory_gb`` and ``device`` by node. Missing nodes are left out.
        model_cost: of :func:`~efficientnet_finetuning.models.cost.cost_of`.
        review: ``label_review``, ``weak_spots``, ``shortcuts`` and ``more_images`` of the pipeline ``review``; empty
            without the features of the frozen backbone.
        figures: PNG files by name. Missing ones are left out.
        run: ``command``, ``version`` and git ``commit``, if known.
        parameters: that the results depend on, by full name.
        seed: of random samples.
    """

    comparison: pd.DataFrame
    verdict: Mapping[str, Any]
    change: Mapping[str, Any]
    audit: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    predictions: Mapping[str, pd.DataFrame]
    images: np.ndarray
    histories: Mapping[str, pd.DataFrame]
    costs: Mapping[str, Mapping[str, Any]]
    model_cost: Mapping[str, float]
    review: Mapping[str, Mapping[str, Any]]
    figures: Mapping[str, bytes]
    run: Mapping[str, Any]
    parameters: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class _Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    links: Sequence[str]  # of the first cell of each row, or none

    @property
    def classes(self) -> list[str]:
        """CSS classes of the columns: ``n`` for numbers, which are aligned right."""
        return [
            "n" if all(_NUMBER.match(row[index]) for row in self.rows) else "" for index in range(len(self.columns))
        ]


def render_report(results: Results) -> str:
    """The report as HTML with its pictures inside. It loads no other files."""
    champion = results.verdict["champion"]
    metrics, predictions = results.metrics[champion], results.predictions[champion]
    examples = examples_of_classes(predictions)
    disagreeing = disagreements(results.predictions, results.seed)
    names = list(metrics["per_class"])
    anchors = {name: f"c{index}" for index, name in enumerate(names)}
    worst_first = sorted(metrics["per_class"].items(), key=lambda item: (item[1]["f1"] is None, item[1]["f1"]))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": percent,
        "number": _number,
        "base64": lambda content: base64.b64encode(content).decode(),
        "webp": lambda content: as_webp(Image.open(BytesIO(content))),
    }
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        verdict=results.verdict,
        answer=_answer(results.comparison, champion),
        meaning=_REGIMES[champion],
        facts=_facts(results),
        change=results.change,
        champion=metrics,
        notes=_notes(results),
        comparison=_comparison(results.comparison),
        losses=_table(
            {"regime": row.regime, "loss, nats": f"{row.loss:.3f}"} for row in results.comparison.itertuples()
        ),
        steps=_steps(results.verdict["steps"]),
        pairs=_pairs(predictions, anchors),
        confusion=confusion(predictions, names).tolist() if len(names) <= _FEW_CLASSES else [],
        classes=_classes(worst_first, anchors),
        opened=[
            _opened(name, result, predictions, examples[examples["true"] == name], anchors)
            for name, result in worst_first
        ],
        two_classes=_two_classes(metrics["per_class"]),
        gallery=_gallery(predictions),
        disagreements=_disagreements(disagreeing),
        thumbnails=thumbnails(results.images, sorted({*examples.index.tolist(), *disagreeing["row"].tolist()})),
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


def _answer(comparison: pd.DataFrame, champion: str) -> str:
    (row,) = comparison[comparison["regime"] == champion].to_dict("records")
    low, high = 100 * row["top1_low"], 100 * row["top1_high"]
    digits = 0 if high - low > 5 else 1
    return f"{percent(row['top1'])} right ({low:.{digits}f} to {high:.{digits}f}) of {row['num_images']:,} test images"


def _facts(results: Results) -> dict[str, str]:
    """What was run, if known."""
    parameters, run, audit = results.parameters, results.run, results.audit
    name = parameters.get("dataset.name") or Path(parameters.get("dataset.path") or audit["source"]).name
    made = time_of(run.get("version", ""))
    facts = {
        "Images": f"{name}: {audit['used']:,} images of {len(audit['classes'])} classes",
        "Backbone": parameters.get("backbone.name"),
        "Image size": f"{results.images.shape[1]} pixels",
        "Date": made and f"{made:%Y-%m-%d %H:%M} UTC",
        "Git commit": run.get("commit"),
        "Command": run.get("command"),
    }
    return {fact: value for fact, value in facts.items() if value}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(rows: Iterable[Mapping[Any, Any]], links: Sequence[str] = ()) -> _Table:
    """Rows by column name."""
    rows = list(rows)
    columns = list(rows[0]) if rows else []
    return _Table(columns, [[str(value) for value in row.values()] for row in rows], links)


def _notes(results: Results) -> list[str]:
    # Test images that the pretrained weights have seen make the scores too optimistic.
    notes = [warning for warning in results.audit["warnings"] if "ImageNet" in warning]
    champion = results.metrics[results.verdict["champion"]]
    if champion.get("flip"):
        notes.append("The logits of each image and its mirror image were averaged (evaluation.flip).")
    supports = [row["support"] for row in champion["per_class"].values()]
    if max(supports) >= 2 * max(min(supports), 1):
        notes.append(
            f"The classes have {min(supports)} to {max(supports)} test images. Balanced accuracy, which gives all "
            f"classes the same weight, is {percent(champion['balanced_accuracy'])}."
        )
    return notes


def _comparison(comparison: pd.DataFrame) -> _Table:
    has_top5 = comparison["top5"].notna().all()
    return _table(
        {
            "regime": row["regime"],
            "right": percent(row["top1"]),
            "95 % interval": f"{100 * row['top1_low']:.1f} to {100 * row['top1_high']:.1f}",
            **({"among the first five": percent(row["top5"])} if has_top5 else {}),
            "training, s": f"{row['training_seconds']:.0f}",
            "description": _REGIMES[row["regime"]],
        }
        for row in comparison.to_dict("records")
    )


def _steps(steps: Iterable[Mapping[str, Any]]) -> _Table:
    return _table(
        {
            "step": f"{step['lower']} → {step['upper']}",
            "points": f"{100 * step['difference']:+.1f}",
            "95 % interval": f"{100 * step['low']:+.1f} to {100 * step['high']:+.1f}",
            "right only after": step["only_upper"],
            "right only before": step["only_lower"],
            "p": f"{step['p_value']:.3f}" if step["p_value"] >= 0.001 else "< 0.001",
        }
        for step in steps
    )


def _pairs(predictions: pd.DataFrame, anchors: Mapping[str, str]) -> _Table:
    pairs = confused_pairs(predictions, _NUM_PAIRS)
    links = [f"#{anchors[true]}-{anchors[predicted]}" for true, predicted, *_ in pairs.to_numpy().tolist()]
    pairs["share"] = pairs["share"].map(percent)
    pairs.columns = ["true class", "predicted class", "images", "share of the true class"]
    return _table(pairs.to_dict("records"), links)


def _two_classes(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    if len(per_class) != 2:
        return ""
    (negative, specificity), (positive, sensitivity) = ((name, row["recall"]) for name, row in per_class.items())
    return (
        f"Sensitivity for {positive} {percent(sensitivity)}, specificity {percent(specificity)}: the shares of "
        f"{positive} and of {negative} that are recognised."
    )


def _classes(worst_first: Sequence[tuple[str, Mapping[str, Any]]], anchors: Mapping[str, str]) -> _Table:
    rows = (
        {
            "class": name,
            "precision": percent(row["precision"]),
            "recall": percent(row["recall"]),
            "F1": percent(row["f1"]),
            "area under ROC": _number(row["roc_auc"]),
            "average precision": _number(row["average_precision"]),
            "test images": row["support"],
        }
        for name, row in worst_first
    )
    return _table(rows, [f"#{anchors[name]}" for name, _ in worst_first])


def _gallery(predictions: pd.DataFrame) -> _Table:
    rows = worth_a_look(predictions)[["id", "true", "predicted", "confidence"]]
    return _table(rows.assign(confidence=rows["confidence"].map(percent)).to_dict("records"))


def _opened(
    name: str, result: Mapping[str, Any], predictions: pd.DataFrame, examples: pd.DataFrame, anchors: Mapping[str, str]
) -> dict[str, Any]:
    """A class with its images: its mistakes, the most frequent first, then right answers."""
    counts: dict[Any, int] = predictions["predicted"][predictions["true"] == name].value_counts().to_dict()
    groups = []
    for predicted in sorted(counts, key=lambda predicted: (predicted == name, -counts[predicted])):
        shown = examples[examples["predicted"] == predicted].reset_index(names="row").to_dict("records")
        told = f"{name}, right" if predicted == name else f"{name} taken for {predicted}"
        some = f", {len(shown)} of them shown" if len(shown) < counts[predicted] else ""
        words = f"{told}: {counts[predicted]} of {result['support']} images{some}"
        groups.append(
            {
                "id": f"{anchors[name]}-{anchors[predicted]}",
                "words": words,
                "pictures": [_picture(row) for row in shown],
            }
        )
    words = f"{name}: {percent(result['recall'])} of {result['support']} images are right"
    return {"id": anchors[name], "words": words, "groups": groups}


def _picture(row: Mapping[Any, Any]) -> dict[str, Any]:
    sure = f"{100 * row['confidence']:.0f} %"
    told = "right" if row["correct"] else f"wrong: it is {row['true']}"
    words = f"{row['id']}: the answer is {row['predicted']} with a confidence of {sure}, which is {told}."
    return {"row": row["row"], "says": [fit_name(row["predicted"], 14), sure], "words": words}


def _disagreements(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Pictures with the true class and the answer of each regime."""
    pictures = []
    for row in rows.to_dict("records"):
        answers = {regime: answer for regime, answer in row.items() if regime not in ("row", "id", "true")}
        marks = {regime: "✓" if answer == row["true"] else "✗" for regime, answer in answers.items()}
        says = [f"{marks[regime]} {regime}: {fit_name(answer, 14)}" for regime, answer in answers.items()]
        words = f"{row['id']} is {row['true']}. " + ", ".join(f"{who} answers {what}" for who, what in answers.items())
        pictures.append({"row": row["row"], "says": [fit_name(row["true"], 14), *says], "words": f"{words}."})
    return pictures


def _threshold(threshold: Mapping[str, Any]) -> str:
    if threshold["confidence"] is None:
        return (
            f"On {threshold['held_out']['num_images']:,} images held out from training, no confidence threshold makes "
            f"{percent(threshold['precision'])} of the answers right."
        )
    return (
        f"For {percent(threshold['precision'])} right answers, use only answers with a confidence of at least "
        f"{threshold['confidence']:.3f}. This threshold was chosen on images held out from training: it answers "
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
        {
            "regime": regime,
            "without temperature": percent(result["calibration_error_raw"]),
            "with": percent(result["calibration_error"]),
            "temperature": f"{result['temperature']:.2f}",
        }
        for regime, result in metrics.items()
    )


def _stages(results: Results) -> _Table:
    """The cost of each stage. Trainings by their history, which includes interrupted runs."""
    classes = results.audit["classes"].values()
    judged = sum(counts["validation"] + counts["test"] for counts in classes)
    stages = [
        ("inspecting the images", "ingestion.look_at_images", results.audit["images"]),
        ("preparing the images", "preprocessing.prepare_images", results.audit["used"]),
    ]
    evaluations = [(f"evaluating {name}", f"{name}.evaluate_classifier", judged) for name in results.histories]

    def measured(stages: Iterable[tuple[str, str, int]]) -> list[dict[str, str]]:
        found = [(stage, results.costs[node], images) for stage, node, images in stages if node in results.costs]
        return [_stage(name, images=images, **cost) for name, cost, images in found]

    trained = [
        _stage(
            f"training {regime}",
            history["seconds"].sum(),
            history["peak_memory_gb"].max(),
            history["device"].iloc[-1],
            history["images"].sum(),
        )
        for regime, history in results.histories.items()
    ]
    return _table([*measured(stages), *trained, *measured(evaluations)])


def _stage(name: str, seconds: float, peak_memory_gb: float, device: str, images: float) -> dict[str, str]:
    speed = images / seconds
    return {
        "stage": name,
        "seconds": f"{seconds:.1f}",
        "images/s": f"{speed:.0f}" if speed >= 1 else f"{speed:.2g}",
        "peak memory, GB": f"{peak_memory_gb:.1f}",
        "device": device,
    }


def _model_cost(cost: Mapping[str, float]) -> _Table:
    row = {
        "parameters": f"{cost['parameters']:,}",
        "GFLOPs per image": f"{cost['gflops']:.2f}",
        "file, MB": f"{cost['file_megabytes']:.1f}",
        "ms per image, one by one": f"{cost['milliseconds_per_image_batch_1']:.1f}",
        "ms per image, batches of 64": f"{cost['milliseconds_per_image_batch_64']:.1f}",
    }
    return _table([row])


def _labels(review: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to check in the data; ``None`` without a review."""
    if not review:
        return None
    found = review["label_review"]
    kinds = [row | {"kind": row["kind"].replace("_", " ")} for row in found["kinds"]]
    quality = [row | {"quality": percent(row["quality"])} for row in found["classes"]]
    doubted, alike = found["pairs"][:_NUM_PAIRS], found["overlapping_classes"]

    def table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> _Table:
        return _table({name: row[key] for key, name in columns.items()} for row in rows)

    return {
        "words": found["words"],
        "notes": found["notes"],
        "kinds": table(kinds, {"kind": "what", "split": "split", "images": "images"}),
        "pairs": table(doubted, {"given": "given", "suggested": "looks like", "images": "images"}),
        "classes": table(
            quality, {"class": "class", "quality": "labels that the heads agree with", "images": "images"}
        ),
        "alike": table(alike, {"first": "class", "second": "and", "images": "images"}),
        "more_images": review["more_images"]["words"],
    }


def _data(audit: Mapping[str, Any], review: Mapping[str, Any]) -> dict[str, Any]:
    shortcuts = review["shortcuts"]["warnings"] if review else []
    return {
        "used": f"{audit['used']:,}",
        "images": f"{audit['images']:,}",
        "num_classes": len(audit["classes"]),
        "warnings": [*audit["warnings"], *shortcuts],
        "shortcuts": [words for words in review["shortcuts"]["words"] if words not in shortcuts] if review else [],
    }
