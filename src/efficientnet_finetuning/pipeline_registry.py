"""All pipelines that ``kedro run --pipelines`` accepts."""

from collections.abc import Callable
from functools import partial, reduce
from inspect import getdoc
from operator import add
from typing import Any

from kedro.pipeline import Pipeline
from kedro.pipeline.preview_contract import TextPreview

from efficientnet_finetuning.pipelines import (
    add_class,
    choice,
    choose_next,
    cross_validation,
    evaluation,
    export,
    ingestion,
    predict,
    preprocessing,
    reporting,
    review,
    training,
    transfer,
)

LADDER = ("baseline", "transfer", "finetune")

# These write a comparison, so only one of them can be in a run.
COMPARING = ("__default__", "baseline", "transfer", "finetune", "seed_parity", "evaluation")


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines by name. Most run everything they need, starting with the raw images.

    ``evaluation``, ``predict``, ``choose_next``, ``add_class`` and ``export`` start from stored data.
    """
    ingest = ingestion.pipeline.create_pipeline()
    prepare = ingest + preprocessing.pipeline.create_pipeline()
    baseline = training.pipeline.create_baseline_pipeline()
    frozen = transfer.pipeline.create_pipeline()
    reviewed = frozen + review.pipeline.create_pipeline()
    start = transfer.pipeline.create_start_pipeline()
    finetune = start + training.pipeline.create_finetune_pipeline()
    seed = training.pipeline.create_seed_parity_pipeline()
    named = {
        "__default__": prepare + baseline + reviewed + finetune + _compared(*LADDER),
        "ingestion": ingest,
        "choose_backbone": ingest + choice.pipeline.create_pipeline(),
        "preprocessing": prepare,
        "baseline": prepare + baseline + _compared("baseline"),
        "transfer": prepare + reviewed + _compared("transfer"),
        "finetune": prepare + reviewed + finetune + _compared("transfer", "finetune"),
        "review": prepare + reviewed,
        "cross_validation": prepare + cross_validation.pipeline.create_pipeline(),
        "find_learning_rate": prepare + frozen + start + training.pipeline.create_learning_rate_pipeline(),
        "seed_parity": prepare + seed + _compared("seed_frozen", "seed_finetune"),
        "evaluation": _compared(*LADDER),
        "export": export.pipeline.create_pipeline(),
        "predict": predict.pipeline.create_pipeline(),
        "choose_next": choose_next.pipeline.create_pipeline(),
        "add_class": add_class.pipeline.create_pipeline(),
    }
    for node in (node for pipeline in named.values() for node in pipeline.nodes):
        # Kedro-Viz shows a preview beside a node. `Node(preview_fn=…)` would print a warning at every start of Kedro.
        setattr(node, "preview", partial(_sentence_about, node.func))  # noqa: B010
    return named


def _sentence_about(function: Callable[..., Any]) -> TextPreview:
    """The first sentence of a function's docstring."""
    return TextPreview(" ".join((getdoc(function) or "").partition("\n\n")[0].split()))


def _compared(*regimes: str) -> Pipeline:
    """The evaluation of each regime, and their comparison."""
    evaluations = [evaluation.pipeline.create_pipeline(regime) for regime in regimes]
    return reduce(add, evaluations, reporting.pipeline.create_pipeline(*regimes))
