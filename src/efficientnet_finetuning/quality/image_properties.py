"""Measure properties of each image and find images that stand out, by cleanvision's rules.

All properties except the sizes come from the prepared squares, which are already decoded. Blur is measured at the
original size if that is smaller: of 3,000 CIFAR-10 images enlarged to 96 px cleanvision calls 20 % blurry, and 1 % at
their own size.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.threads import map_in_threads

# The audit covers cleanvision's other kinds: duplicates and colour spaces.
KINDS = ("dark", "light", "blurry", "low_information", "odd_size", "odd_aspect_ratio")
# A kind that affects a larger share of the images is normal for the set.
_LARGEST_SHARE = 0.2
# On larger squares, brightness percentiles take much longer and give the same result.
_BRIGHTNESS_SIDE = 96
_SATURATION_SIDE = 32


def measure_properties(manifest: pd.DataFrame, examples: Mapping[str, Examples]) -> pd.DataFrame:
    """Measure every prepared image on all cores, in bounded memory.

    Bands of padded images count as part of the image, because the network sees them too. The manifest needs ``id``,
    ``split``, ``width`` and ``height``; ``examples`` holds the prepared images by split.

    Returns:
        One row per image, in the order of the examples: ``id``, ``split``; ``brightness``, ``contrast`` (95th minus 5th
        percentile of the brightness), ``saturation``, ``border_brightness`` and ``border_spread`` (mean and standard
        deviation over a thin frame), all in 0–1; and under cleanvision's names ``brightness_perc_*``, ``blurriness``
        (spread of the edges; higher is sharper), ``blurriness_grayscale_std``, ``entropy`` in bits, and, of the
        original image, ``size`` (root of the area in pixels) and ``aspect_ratio`` (shorter to longer side).
    """
    tables = []
    for split, part in examples.items():
        sizes = manifest[manifest["split"] == split].set_index("id").loc[part.ids, ["width", "height"]].to_numpy()
        measured = map_in_threads(_Measure(), zip(part.images, sizes, strict=True))
        table = pd.DataFrame(list(measured))
        table.insert(0, "id", part.ids)
        table.insert(1, "split", split)
        table["size"] = np.sqrt(sizes.prod(axis=1))
        table["aspect_ratio"] = sizes.min(axis=1) / sizes.max(axis=1)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def find_property_issues(properties: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Find images that are dark, light, blurry, of low information, or of an odd size or aspect ratio.

    Scores and thresholds are cleanvision's defaults, applied to the table of :func:`measure_properties`.

    Returns:
        The flagged images: ``id``, ``split``, ``kind`` (of :data:`KINDS`) and ``score`` (0–1, lower is worse), by kind,
        the worst first; and a sentence for each kind that is skipped because too many images have it.
    """
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    manager = ImagePropertyIssueManager()
    manager.issues = pd.DataFrame(index=properties.index)
    manager.update_issues(properties, list(KINDS))
    tables, words = [], []
    for kind in KINDS:
        flagged = manager.issues[f"is_{kind}_issue"].astype(bool)
        if flagged.mean() > _LARGEST_SHARE:
            words.append(
                f"{flagged.sum():,} of {len(flagged):,} images are {kind.replace('_', ' ')}. This is normal for "
                "this set, so they are not listed."
            )
            continue
        rows = properties.loc[flagged, ["id", "split"]]
        tables.append(rows.assign(kind=kind, score=manager.issues.loc[flagged, f"{kind}_score"].clip(0, 1)))
    issues = pd.concat([pd.DataFrame(columns=["id", "split", "kind", "score"]), *(t for t in tables if len(t))])
    return issues.sort_values(["kind", "score"], kind="stable", ignore_index=True), words


class _Measure:
    """Measures one ``(pixels, (width, height))``; creates cleanvision's objects only once."""

    def __init__(self) -> None:
        from cleanvision.issue_managers.image_property import BlurrinessProperty, BrightnessProperty, EntropyProperty

        self._brightness = BrightnessProperty("dark")
        self._blur, self._entropy = BlurrinessProperty(), EntropyProperty()

    def __call__(self, item: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        pixels, own_size = item
        image = Image.fromarray(pixels)
        found = self._brightness.calculate(image.reduce(max(image.width // _BRIGHTNESS_SIDE, 1)))
        found["contrast"] = found["brightness_perc_95"] - found["brightness_perc_5"]
        small = image.reduce(max(image.width // _SATURATION_SIDE, 1))
        found["saturation"] = np.asarray(small.convert("HSV"))[..., 1].mean() / 255
        frame = _frame(pixels)
        found["border_brightness"], found["border_spread"] = frame.mean() / 255, frame.std() / 255
        own = min(image.width, own_size[0]), min(image.height, own_size[1])
        found |= self._blur.calculate(image if own == image.size else image.resize(own))
        return found | self._entropy.calculate(image)


def _frame(pixels: np.ndarray) -> np.ndarray:
    """Grey values of a frame; its width is 1/32 of the side."""
    width = max(len(pixels) // 32, 1)
    parts = pixels[:width], pixels[-width:], pixels[width:-width, :width], pixels[width:-width, -width:]
    rgb = np.concatenate([part.reshape(-1, 3) for part in parts])
    grey: np.ndarray = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    return grey
