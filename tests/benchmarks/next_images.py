"""Does choosing what to label pay? `make bench-next-images` prints a table.

From 200 labelled images of CIFAR-10, 800 more are labelled out of 6,000: at random, by the smallest margin, and by the
project's ranking, at once or 200 at a time, with a head in between. All are judged by images that none of them
contains. The labelled 200 are 20 of each class on even draws, random on odd ones. Beside that: `copies` has 2,000
images three times, with noise; `uneven` has three classes, the first of which is a twentieth of all images, and starts
from 60 labels and adds 240.

Measured: ``make bench-next-images`` printed, in points ahead of as many images at random (heads on Lite0 at 96 px,
CIFAR-10, five draws, with the standard error):

==============================================  ===================  ==================
800 more beside 200 labelled, of 6,000          margin alone         **Cluster-Margin**
==============================================  ===================  ==================
at once                                         +1.1 ± 0.4           +0.8 ± 0.3
200 at a time                                   +1.1 ± 0.5           +1.5 ± 0.2
at once, each image three times                 −2.2 ± 0.7           +1.3 ± 0.6
200 at a time, each image three times           −0.7 ± 0.5           +1.9 ± 0.6
three classes, one rare, 240 beside 60: 60 at   +1.5 ± 0.5           +1.4 ± 0.6
a time
the same at once                                −0.1 ± 1.1           +0.6 ± 0.7
==============================================  ===================  ==================

The images of the rarest class in the last two rows: 42 to 44 at random, 76 and 47 by Cluster-Margin. At once, on draws
for choosing (five or ten of them): entropy 0.0, core-set −1.4, TypiClust +0.5, BADGE +0.7, weighted k-means++ +0.8.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from frozen import CIFAR10, head_parameters, load_features
from levers import names_of, say

from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.quality.next_images import margins, rank_images
from efficientnet_finetuning.training.head import FittedHead, fit_head

SETTINGS = {"plain": (200, 800, 6000), "copies": (200, 800, 6000), "uneven": (60, 240, 1800)}
METHODS = ("random", "margin", "ranked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with the prepared TFDS set cifar10")
    parser.add_argument("--set", choices=list(CIFAR10), default="cifar_rep")
    parser.add_argument("--settings", type=names_of(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path("data/03_primary/bench_features"))
    options = parser.parse_args()
    features, labels = load_features(options.set, options.data_dir, None, options.cache)
    rows = []
    for setting in options.settings:
        for draw in range(options.draws):
            rows += [row | {"set": options.set, "setting": setting} for row in measure(features, labels, setting, draw)]
            say(f"{setting}, draw {draw}: " + ", ".join(f"{row['how']} {row['top1']:.1f}" for row in rows[-6:]))
    say(table(pd.DataFrame(rows)))


def measure(features: np.ndarray, labels: np.ndarray, setting: str, draw: int) -> list[dict]:
    generator = np.random.default_rng((19_001, draw))
    num_start, num_more, num_pool = SETTINGS[setting]
    order = generator.permutation(len(labels))
    if setting == "uneven":
        order = order[labels[order] < 3]
        is_rare = labels[order] == 0
        kept = ~is_rare | (np.cumsum(is_rare) <= 0.05 * len(order))
        order, test = order[kept], order[~kept]
        num_pool = int(0.7 * len(order)) - num_start
    else:
        test = order[:0]
    start, pool = order[:num_start], order[num_start : num_start + num_pool]
    test = np.concatenate([test, order[num_start + num_pool :]])
    if setting != "uneven" and draw % 2 == 0:
        known = np.concatenate([order[labels[order] == label][:20] for label in range(10)])
        start, pool = known, np.setdiff1d(order[: num_start + num_pool], known)
    unlabelled = features[pool], labels[pool]
    if setting == "copies":
        copied = features[pool[:2000]].repeat(3, axis=0)
        noise = 0.1 * copied.std(0) * generator.standard_normal(copied.shape, np.float32)
        unlabelled = copied + noise, labels[pool[:2000]].repeat(3)
    rows = []
    for method in METHODS:
        for step in (num_more, num_more // 4):
            seen, classes = grow((features[start], labels[start]), unlabelled, method, num_more, step, draw)
            hits = answers(fit(seen, classes), features[test]).argmax(1) == labels[test]
            # Each class counts the same where they are uneven.
            top1 = np.mean([hits[labels[test] == label].mean() for label in np.unique(labels[test])])
            fewest = np.bincount(classes).min()
            rows.append({"draw": draw, "how": f"{method} {step}", "top1": 100 * top1, "fewest": fewest})
    return rows


def grow(
    known: tuple[np.ndarray, np.ndarray],
    unlabelled: tuple[np.ndarray, np.ndarray],
    method: str,
    more: int,
    step: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of the images that are known at the end."""
    (seen, classes), (left, left_labels) = known, unlabelled
    for turn in range(more // step):
        if method == "random":
            chosen = np.random.default_rng((seed, turn)).permutation(len(left))[:step]
        else:
            probabilities = np.exp(log_softmax(answers(fit(seen, classes), left)))
            ranked = margins(probabilities).argsort() if method == "margin" else rank_images(probabilities, left, seed)
            chosen = ranked[:step]
        seen, classes = np.concatenate([seen, left[chosen]]), np.concatenate([classes, left_labels[chosen]])
        left, left_labels = np.delete(left, chosen, axis=0), np.delete(left_labels, chosen)
    return seen, classes


def fit(features: np.ndarray, labels: np.ndarray) -> FittedHead:
    one_hot = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    return fit_head(features, one_hot, features[:0], one_hot[:0], head_parameters(), quiet=True)


def answers(head: FittedHead, features: np.ndarray) -> np.ndarray:
    return features @ head.kernel + head.bias


def table(rows: pd.DataFrame) -> str:
    """Means, and points ahead of as many images at random with their standard error."""
    chance = rows[rows["how"].str.startswith("random")].groupby(["setting", "draw"])["top1"].mean().rename("chance")
    both = rows.merge(chance, on=["setting", "draw"])
    both["points"] = both["top1"] - both["chance"]
    grouped = both.groupby(["set", "setting", "how"], sort=False)
    shown = grouped.agg(draws=("draw", "size"), top1=("top1", "mean"), fewest=("fewest", "mean"))
    shown["points"], shown["error"] = grouped["points"].mean(), grouped["points"].sem()
    return shown.to_string(float_format="{:.2f}".format)


if __name__ == "__main__":
    main()
