"""Properties of each image that need no network, and the images that stand out by them, by cleanvision's rules.

All but the sizes is judged on the prepared squares, which are decoded already. An image that was enlarged to its square
is brought back to its own size before its blur is judged: of 3,000 CIFAR-10 images at 96 px cleanvision calls 20 %
blurry as they are, and 1 % so.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.threads import map_in_threads

# The audit has cleanvision's other kinds, duplicates and colour spaces.
KINDS = ("dark", "light", "blurry", "low_information", "odd_size", "odd_aspect_ratio")
# A kind that is found in a larger share of the images is what the set is like, not what is wrong with some of it.
_LARGEST_SHARE = 0.2
# Percentiles of the brightness of larger squares take most of the time and say the same.
_BRIGHTNESS_SIDE = 96
_SATURATION_SIDE = 32


def measure_properties(manifest: pd.DataFrame, examples: Mapping[str, Examples]) -> pd.DataFrame:
    """Measure every prepared image on all cores, in bounded memory.

    Where images are padded to squares, the bands count as part of the image: they are what a network sees.

    Args:
        manifest: with ``id``, ``split``, ``width`` and ``height``.
        examples: prepared images of each split.

    Returns:
        One row an image, split by split in the order of the examples: ``id``, ``split``; ``brightness``, ``contrast``
        (between the 5th and the 95th percentile of the brightness), ``saturation``, ``border_brightness`` and
        ``border_spread`` (mean and standard deviation over a thin frame), all in 0–1; and what cleanvision computes,
        under its names: ``brightness_perc_*``, ``blurriness`` (the spread of the edges: higher is sharper),
        ``blurriness_grayscale_std``, ``entropy`` in bits, ``size`` (root of the area in pixels) and ``aspect_ratio``
        (shorter to longer side) of the image before it was resized.
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
    """Images that are dark, light, blurry, of low information, or of an odd size or aspect ratio.

    The scores and thresholds are cleanvision's own defaults.

    Args:
        properties: of :func:`measure_properties`.

    Returns:
        The images that are flagged: ``id``, ``split``, ``kind`` (of :data:`KINDS`) and ``score`` (0–1, lower is worse),
        by kind, the worst first; and a sentence for each kind that is left out since it holds for too many.
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
                f"{flagged.sum():,} of {len(flagged):,} images are {kind.replace('_', ' ')}: so the set is like that, "
                "and none of them is listed for it."
            )
            continue
        rows = properties.loc[flagged, ["id", "split"]]
        tables.append(rows.assign(kind=kind, score=manager.issues.loc[flagged, f"{kind}_score"].clip(0, 1)))
    issues = pd.concat([pd.DataFrame(columns=["id", "split", "kind", "score"]), *(t for t in tables if len(t))])
    return issues.sort_values(["kind", "score"], kind="stable", ignore_index=True), words


class _Measure:
    """Measures one ``(pixels, (width, height))``; cleanvision's objects are made once."""

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
    """Grey values of a frame as wide as a thirty-second part of the side."""
    width = max(len(pixels) // 32, 1)
    parts = pixels[:width], pixels[-width:], pixels[width:-width, :width], pixels[width:-width, -width:]
    rgb = np.concatenate([part.reshape(-1, 3) for part in parts])
    grey: np.ndarray = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    return grey
