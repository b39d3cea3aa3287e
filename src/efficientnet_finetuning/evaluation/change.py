"""What has changed since the run before: both runs' answers, judged by the labels that are believed now."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from efficientnet_finetuning.evaluation.verdict import difference_in_words, paired_difference

_RUNS = {"before": "the run before", "now": "this one"}


def change_since(before: pd.DataFrame | None, now: pd.DataFrame) -> dict[str, Any]:
    """Compare two runs' answers to the test images that both were asked.

    Labels were mostly changed where a model disagreed with them, which flatters models of its kind; so the images whose
    labels have stayed are judged by themselves, too.

    Args:
        before: predictions of the run before, from
            :func:`~efficientnet_finetuning.evaluation.metrics.predictions_table`; ``None`` where there was none.
        now: those of this run, whose ``true`` is the truth for both.

    Returns:
        ``num_images`` (that both were asked), ``only_before`` and ``only_now`` (images of one run alone),
        ``num_relabelled``, ``all`` and ``untouched`` (the images whose labels have stayed), each as
        :func:`~efficientnet_finetuning.evaluation.verdict.paired_difference` gives it or ``None`` where there is
        nothing to compare, and ``words``.
    """
    if before is None:
        before = now[:0]
    both = now.merge(before, on="id", suffixes=("", "_before"))
    same_label = both["true"] == both["true_before"]
    differs = not (same_label.all() and (both["predicted"] == both["predicted_before"]).all())
    counts = {
        "num_images": len(both),
        "only_before": len(before) - len(both),
        "only_now": len(now) - len(both),
        "num_relabelled": int((~same_label).sum()),
    }

    def compared(rows: pd.DataFrame) -> dict[str, Any] | None:
        if not differs or rows.empty:
            return None
        lower, upper = (rows[told] == rows["true"] for told in ("predicted_before", "predicted"))
        return paired_difference(lower.to_numpy(bool), upper.to_numpy(bool))

    found = counts | {"all": compared(both), "untouched": compared(both[same_label])}
    return found | {"words": _words(found, len(before))}


def _words(found: Mapping[str, Any], num_before: int) -> str:
    if not num_before:
        return "No run before this one is stored: there is nothing to compare."
    if not found["num_images"]:
        return "The run before had other test images: there is nothing to compare."
    alone = [f"{found[f'only_{run}']:,} only by {who}" for run, who in _RUNS.items() if found[f"only_{run}"]]
    by_one = f" ({', '.join(alone)})" if alone else ""
    asked = f"Both runs answered {found['num_images']:,} test images{by_one}"
    if not found["all"]:
        return f"{asked}, with the same answers."
    words = (
        f"{asked}. Judged by the labels of now, this run gets {difference_in_words(found['all'], 'the run before')}."
    )
    if not found["num_relabelled"]:
        return words
    words += f" The labels of {found['num_relabelled']:,} have changed in between."
    if found["untouched"]:
        words += f" On the others alone it gets {difference_in_words(found['untouched'], 'the run before')}."
    return words
