"""Compare a run with the run before, by the current labels."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from efficientnet_finetuning.errors import counted
from efficientnet_finetuning.evaluation.verdict import difference_in_words, paired_difference

_RUNS = {"before": "the run before", "now": "this one"}


def change_since(before: pd.DataFrame | None, now: pd.DataFrame) -> dict[str, Any]:
    """Compare the predictions of two runs on the test images that both have, by the current ``true`` classes.

    Labels are usually corrected where a model disagreed, which favours similar models. So the images with unchanged
    labels are also compared separately.

    Returns:
        ``num_images`` (common), ``only_before``, ``only_now``, ``num_relabelled``; ``all`` and ``untouched`` (images
        with unchanged labels), each of :func:`~efficientnet_finetuning.evaluation.verdict.paired_difference` or
        ``None`` if there is no difference; and ``words``.
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


def changed_images(before: pd.DataFrame, now: pd.DataFrame) -> Iterator[str]:
    """Sentences about the differences between the images of two runs.

    Both tables are manifests with ``id``, ``class_name`` and ``split`` (empty for excluded images).
    """
    was, is_ = (table[table["split"] != ""].set_index("id") for table in (before, now))
    both = was.index.intersection(is_.index)
    old, new = was.loc[both], is_.loc[both]
    counts = {
        "added": len(is_) - len(both),
        "removed": len(was) - len(both),
        "relabelled": (old["class_name"] != new["class_name"]).sum(),
        "moved to another split": (old["split"] != new["split"]).sum(),
    }
    for what, count in counts.items():
        if count:
            yield f"{counted(count, 'image')} {what}"


def _words(found: Mapping[str, Any], num_before: int) -> str:
    if not num_before:
        return "No earlier run is stored, so there is nothing to compare."
    if not found["num_images"]:
        return "The run before had other test images, so there is nothing to compare."
    alone = [f"{found[f'only_{run}']:,} only by {who}" for run, who in _RUNS.items() if found[f"only_{run}"]]
    by_one = f" ({', '.join(alone)})" if alone else ""
    asked = f"Both runs answered {found['num_images']:,} test images{by_one}"
    if not found["all"]:
        return f"{asked}, with the same answers."
    words = f"{asked}. By the current labels, this run gets {difference_in_words(found['all'], 'the run before')}."
    if not found["num_relabelled"]:
        return words
    words += f" Since then, {counted(found['num_relabelled'], 'label')} changed."
    if found["untouched"]:
        words += f" On the other images it gets {difference_in_words(found['untouched'], 'the run before')}."
    return words
