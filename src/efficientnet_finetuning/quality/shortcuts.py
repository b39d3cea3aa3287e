"""Shortcuts: properties that have nothing to do with the object, but reveal its class.

A network uses whatever separates the classes of its training images: the white border of one class' studio, or the
camera of another (Geirhos et al. 2020, arXiv:2004.07780). Here models get only such properties, without pixels, and
predict images that they were not fitted on.

Some properties are informative without being a shortcut: for 10,000 CIFAR-10 images, contrast alone predicts the class
of 16 % (chance 10 %), the border 17 %, all properties together 24 %. So a warning requires a class that stands out:
Youden's J (recall minus false alarms) is above 0.2 for properties of the file, or 0.5 for properties of the pixels,
with 95 % confidence. The largest bounds by pixels are 0.22 (CIFAR-10), 0.02 (drawn images) and 0.15 (223 photographs,
whose vegetables reach 0.22 to 0.33 by their size of some 60 pixels). A class of 30 images with its own format, size,
frame or brightness reaches 0.9; of 300 sets of 60 to 400 images without a shortcut, one gave a warning.
"""

import unicodedata
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.data.groups import groups_of
from efficientnet_finetuning.errors import percent, shorten
from efficientnet_finetuning.quality.multiple_tests import holm

# These do not depend on the object. Properties of pixels may: the sky is bright, a crow is dark.
_OF_THE_FILE = {
    "format": "file format",
    "mode": "colour mode",
    "size": "size in pixels",
    "aspect_ratio": "aspect ratio",
    "folder": "folder of the file",
    "order": "order of the files",
}
_OF_THE_PIXELS = {"brightness": "brightness", "contrast": "contrast", "saturation": "saturation", "border": "border"}
_TITLES = _OF_THE_FILE | _OF_THE_PIXELS
# Thresholds of a warning, for the lower bound of Youden's J.
_FAR, _FAR_BY_PIXELS = 0.2, 0.5
_LEVEL = 0.01
_MOST_IMAGES = 10_000
_FOLDS = 5
_TREES = 25


def find_shortcuts(manifest: pd.DataFrame, properties: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Predict the class from properties: from each by a decision tree, from all by a random forest.

    Predictions are out of fold; images of one ``group`` share a fold. Accuracy is balanced (the mean over the classes),
    so chance is one over the number of classes.

    Args:
        manifest: in the source's order: ``id``, ``split``, ``source_split``, ``label``, ``class_name``, ``format``,
            ``mode``, ``width``, ``height`` and ``group``. Only train and validation images are used.
        properties: of :func:`~efficientnet_finetuning.quality.image_properties.measure_properties`.
        seed: of the folds, the forest, and the sample of 10,000 images if there are more.

    Returns:
        As JSON: ``num_images``; ``chance``, and ``accuracy`` of all properties together with its 95 % interval ``low``
        and ``high`` (``None`` if unknown); ``properties``: for each property that varies ``accuracy``, ``low``,
        ``high``, ``p_value`` (one-sided, Holm-corrected), ``tells`` (more than luck), and for the class that stands out
        most ``class_name``, ``recall``, ``false_alarms`` (share of other images predicted as it) and ``stands_out``
        (lower bound of their difference); ``words``: sentences; ``warnings``: the sentences that call for action.
    """
    manifest = manifest[manifest["split"].isin(["train", "validation"])].reset_index(drop=True)
    columns, words = _columns(manifest, properties)
    all_labels, all_groups = manifest["label"].to_numpy(), groups_of(manifest, manifest["id"].to_numpy())
    rows = _judged_rows(all_labels, all_groups, seed)
    present, labels = np.unique(all_labels[rows], return_inverse=True)
    groups = all_groups[rows]
    report: dict[str, Any] = {"num_images": len(rows), "chance": None, "accuracy": None, "low": None, "high": None}
    if len(present) < 2:
        unknown = f"The search for shortcuts needs two classes with {_FOLDS} images or groups each."
        return report | {"properties": {}, "words": [unknown], "warnings": []}
    class_names = manifest.groupby("label")["class_name"].first()[present].to_list()
    if missing := sorted(set(manifest["class_name"]) - set(class_names)):
        words.append(f"These classes have fewer than {_FOLDS} images or groups and are ignored: {shorten(missing)}.")
    folds = _folds(labels, groups, seed)
    columns = {name: values[rows] for name, values in columns.items() if (values[rows] != values[rows][:1]).any()}
    known = labels, groups, class_names
    judged = {name: _score(_out_of_fold(values, labels, folds), *known) for name, values in columns.items()}
    corrected = holm([found["p_value"] for found in judged.values()]).tolist()
    for found, p_value in zip(judged.values(), corrected, strict=True):
        # One class of many may stand out although the mean over all classes is at chance.
        found |= {"p_value": p_value, "tells": p_value < _LEVEL or found["stands_out"] > _FAR}
    if judged:
        together = _out_of_fold(np.concatenate(list(columns.values()), axis=1), labels, folds, forest_seed=seed)
        found = _score(together, *known)
        report |= {key: found[key] for key in ("accuracy", "low", "high")}
    report |= {"chance": 1 / len(present), "properties": judged}
    return report | _sentences(report, words)


def _columns(manifest: pd.DataFrame, properties: pd.DataFrame) -> tuple[dict[str, np.ndarray], list[str]]:
    """Numbers ``(N, …)`` of each property, and sentences about missing properties."""
    measured = properties.set_index("id").loc[manifest["id"]]
    width, height = (manifest[side].to_numpy(float) for side in ("width", "height"))
    columns = {name: _codes(manifest[name]) for name in ("format", "mode")}
    columns["size"] = np.stack([width, height, width * height], axis=1)
    columns["aspect_ratio"] = (width / height)[:, None]
    columns["folder"] = _codes(_folders(manifest))
    columns |= {name: measured[[name]].to_numpy(float) for name in ("brightness", "contrast", "saturation")}
    columns["border"] = measured[["border_brightness", "border_spread"]].to_numpy(float)
    order = _order(manifest)
    if order is None:
        return columns, ["The files are sorted by class, so their order is not tested."]
    return columns | {"order": order[:, None]}, []


def _codes(values: pd.Series) -> np.ndarray:
    codes: np.ndarray = pd.factorize(values, sort=True)[0].astype(float)[:, None]
    return codes


def _folders(manifest: pd.DataFrame) -> pd.Series:
    """Folders of files, without the parts that all files of a split share or that name the class.

    If each folder holds one class, folders may just be the classes' names; several folders per class may be patients or
    videos. Neither is a shortcut, so the result is then empty.
    """
    paths = manifest["id"].map(lambda id_: _plain(id_).split("/")[:-1])
    for _, of_split in paths.groupby(manifest["source_split"]):
        first, last = min(of_split), max(of_split)  # a common prefix of these two is common to all between them
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
        paths[of_split.index] = of_split.map(lambda path, shared=shared: path[shared:])
    own = manifest["class_name"].map(lambda name: _plain(name).split("/"))
    rest = [[part for part in path if part not in names] for path, names in zip(paths, own, strict=True)]
    is_named = all(len(left) < len(path) for left, path in zip(rest, paths, strict=True))
    folders = pd.Series(["/".join(path) for path in rest], manifest.index)
    of_one_class = manifest.groupby(folders)["label"].nunique().max() == 1
    if of_one_class and (not is_named or folders.nunique() > manifest["label"].nunique()):
        return pd.Series("", manifest.index)
    return folders


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _order(manifest: pd.DataFrame) -> np.ndarray | None:
    """The position of each file in its split, 0–1; ``None`` if files are sorted by class.

    Numbers in file names define the order if they run through the whole set (``IMG_0123``), not if each class starts
    again (``cat/1.jpg``, ``dog/1.jpg``). Otherwise the source's order counts.
    """
    splits = manifest["source_split"]
    numbers = manifest["id"].map(lambda id_: PurePosixPath(id_).stem).str.extract(r"(\d+)\D*$")[0].astype(float)
    listed = pd.Series(np.arange(len(manifest)), manifest.index)
    run_through = not numbers.isna().any() and (numbers.groupby(splits).nunique() > 0.95 * splits.value_counts()).all()
    for order in [numbers, listed] if run_through else [listed]:
        ranks = order.groupby(splits).rank(method="first")
        labels = manifest["label"].to_numpy()[np.lexsort((ranks, splits))]
        # Ignore single labels among those of another class: they are corrected ones in a sorted list.
        is_alone = (labels[1:-1] != labels[:-2]) & (labels[:-2] == labels[2:])
        labels = np.delete(labels, 1 + np.flatnonzero(is_alone))
        if np.count_nonzero(np.diff(labels)) >= 1.5 * splits.nunique() * len(np.unique(labels)):
            share: np.ndarray = (ranks / ranks.groupby(splits).transform("max")).to_numpy()
            return share
    return None


def _judged_rows(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """A sample of images, in order, without classes that are too small for the folds."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(labels))[:_MOST_IMAGES])
    num_groups = pd.Series(groups[rows]).groupby(labels[rows]).nunique()
    return rows[np.isin(labels[rows], num_groups.index[num_groups >= _FOLDS])]


def _folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each image ``(N,)``: deals groups at random, class by class of their first images.

    Scikit-learn's ``StratifiedGroupKFold`` takes most of a minute for 10,000 images of 120 classes.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    dealt = np.lexsort((np.random.default_rng(seed).random(len(first)), labels[first]))
    fold_of_group = np.empty(len(first), np.int64)
    fold_of_group[dealt] = np.arange(len(first)) % _FOLDS
    return fold_of_group[group]


def _out_of_fold(
    values: np.ndarray, labels: np.ndarray, folds: np.ndarray, forest_seed: int | None = None
) -> np.ndarray:
    """The class ``(N,)`` that a tree, or with a seed a forest, predicts for each image."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    # About ten leaves per class: smaller leaves overfit, larger ones miss small classes.
    smallest = max(3, len(labels) // (10 * (labels.max() + 1)))
    predicted = np.empty_like(labels)
    for fold in range(_FOLDS):
        judged = folds == fold
        if forest_seed is None:
            model = DecisionTreeClassifier(class_weight="balanced", min_samples_leaf=smallest, random_state=0)
        else:
            model = RandomForestClassifier(
                _TREES, class_weight="balanced", min_samples_leaf=max(3, smallest // 4), random_state=forest_seed
            )
        predicted[judged] = model.fit(values[~judged], labels[~judged]).predict(values[judged])
    return predicted


def _score(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Balanced accuracy, its interval, and its p-value against chance; a group counts as one observation."""
    from scipy.stats import norm

    num_images, hits = np.bincount(labels), predicted == labels
    recall = np.bincount(labels, hits) / num_images
    weight = 1 / num_images[labels] / len(num_images)

    def deviation(expected: np.ndarray) -> float:
        return float(np.sqrt((np.bincount(groups, weight * (hits - expected[labels])) ** 2).sum()))

    # Random predictions hit each class as often as they predict it.
    by_chance = np.bincount(predicted, minlength=len(recall)) / len(predicted)
    accuracy, spread = float(recall.mean()), 1.96 * deviation(recall)
    return {
        "accuracy": accuracy,
        "low": max(accuracy - spread, 0.0),
        "high": min(accuracy + spread, 1.0),
        "p_value": float(norm.sf((accuracy - 1 / len(recall)) / max(deviation(by_chance), 1e-12))),
    } | _standing_out(predicted, labels, groups, class_names)


def _standing_out(
    predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """The class that a property reveals best, by a lower bound of Youden's J (recall minus false alarms).

    One revealed class of many hardly changes the accuracy, which is the scaled mean of J over the classes. The bound
    has Bonferroni's correction for the number of classes.
    """
    from scipy.stats import norm

    num_classes = len(class_names)
    confusion = np.zeros((num_classes, num_classes))
    np.add.at(confusion, (labels, predicted), 1)
    num_images, hits = confusion.sum(axis=1), confusion.diagonal()
    num_others = len(labels) - num_images
    recall, false_alarms = hits / num_images, (confusion.sum(axis=0) - hits) / num_others
    num_groups = pd.Series(groups).groupby(labels).nunique().to_numpy()
    variance = np.zeros(num_classes)
    for share, observed in ((recall, num_groups), (false_alarms, num_groups.sum() - num_groups)):
        smoothed = (share * observed + 1) / (observed + 2)  # otherwise five hits of five would have no variance
        variance += smoothed * (1 - smoothed) / observed
    lower = recall - false_alarms - norm.isf(0.05 / num_classes) * np.sqrt(variance)
    best = lower.argmax()
    return {
        "class_name": class_names[best],
        "recall": float(recall[best]),
        "false_alarms": float(false_alarms[best]),
        "stands_out": float(lower[best]),
    }


def _sentences(report: dict[str, Any], words: list[str]) -> dict[str, list[str]]:
    """``words`` about every property that reveals the class, strongest first, and the ``warnings`` among them."""
    chance = report["chance"]
    told = [(name, found) for name, found in report["properties"].items() if found["tells"]]
    if not told:
        nothing = "No property of the files, and neither brightness, colours nor border, predicts the class."
        return {"words": [nothing, *words], "warnings": []}
    sentences = {}
    for name, found in sorted(told, key=lambda item: -item[1]["stands_out"]):
        sentence = (
            f"The {_TITLES[name]} alone predicts the class of {percent(found['accuracy'], 0)} of the images (chance "
            f"{percent(chance, 0)}). From it, a model recognizes {percent(found['recall'], 0)} of the images of "
            f"{found['class_name']}, and confuses {percent(found['false_alarms'], 0)} of the others with "
            f"{found['class_name']}."
        )
        sentences[sentence] = found["stands_out"] > (_FAR if name in _OF_THE_FILE else _FAR_BY_PIXELS)
    together = (
        f"All properties together predict the class of {percent(report['accuracy'], 0)} of the images "
        f"({percent(report['low'], 0)} to {percent(report['high'], 0)}; chance {percent(chance, 0)})."
    )
    sentences[together] = (report["low"] - chance) / (1 - chance) > _FAR_BY_PIXELS
    return {"words": [*sentences, *words], "warnings": [words for words, is_far in sentences.items() if is_far]}
