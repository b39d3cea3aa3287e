"""The data of the review page: issues, images, similar images and decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from efficientnet_finetuning.data.corrections import Decision
from efficientnet_finetuning.data.examples import Examples

# Images of a class, evenly spread, that are compared with the current one: this takes a tenth of a second.
_MOST_CANDIDATES = 5_000
_ISSUE_COLUMNS = ["id", "kind", "suggested", "probability", "neighbour"]
_MANIFEST_COLUMNS = ["id", "split", "class_name", "sha256", "corrected"]


def read_table(file: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a stored table; texts such as a class called "NA" stay texts."""
    numbers = {"score": float, "probability": float}
    table = pd.read_csv(file, dtype=str, keep_default_na=False, usecols=columns)
    return table.assign(**{name: pd.to_numeric(table[name], "coerce") for name in numbers if name in table})


@dataclass(frozen=True)
class Review:
    """The issues of a set, with everything that the page shows beside them.

    Attributes:
        issues: ``id``, ``kind``, ``suggested`` (class name or empty), its ``probability`` (0–1 or NaN) and
            ``neighbour`` (id or empty), by kind, the likeliest first.
        manifest: ``split``, ``class_name``, ``sha256`` and ``corrected`` by id.
        own_names: the set's own classes.
        splits: the prepared images.
        features: unit vectors ``(N, C)``, float16 or float32.
        feature_ids: strings ``(N,)``.
    """

    issues: pd.DataFrame
    manifest: pd.DataFrame
    own_names: tuple[str, ...]
    splits: Sequence[Examples]
    features: np.ndarray
    feature_ids: np.ndarray

    @classmethod
    def open(
        cls, issues: Path, manifest: Path, own_names: Sequence[str], images: Sequence[Path], features: Path
    ) -> "Review":
        """Open CSVs and folders that runs stored; images and features stay on disk.

        Drops issues of images that are no longer used. The folder ``features`` holds ``features.npy`` and ``ids.npy``.
        """
        rows = read_table(manifest, _MANIFEST_COLUMNS)
        used = rows[rows["split"] != ""].set_index("id")
        found = read_table(issues, _ISSUE_COLUMNS)
        return cls(
            found[found["id"].isin(used.index)].reset_index(drop=True),
            used,
            tuple(own_names),
            [Examples.open(folder) for folder in images],
            np.load(features / "features.npy", mmap_mode="r", allow_pickle=False),
            np.load(features / "ids.npy", allow_pickle=False),
        )

    @cached_property
    def by_kind(self) -> dict[str, pd.DataFrame]:
        """The issues by kind, in the order in which the kinds first appear."""
        groups = self.issues.groupby("kind", sort=False)
        return {str(kind): rows.reset_index(drop=True) for kind, rows in groups}

    def image(self, id_: str) -> np.ndarray | None:
        """Prepared pixels, uint8 ``(size, size, 3)``; ``None`` if they are not stored."""
        if (place := self._places.get(id_)) is None:
            return None
        split, row = place
        pixels: np.ndarray = self.splits[split].arrays[0][row]
        return pixels

    def nearest(self, id_: str, class_name: str, count: int) -> list[str]:
        """Ids of a class' images with the most similar features (cosine), nearest first."""
        rows = self._rows_of_class.get(class_name, np.empty(0, int))
        if id_ not in self._feature_rows or not len(rows):
            return []
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, _MOST_CANDIDATES).astype(int))]
        own = self._feature_rows[id_]
        rows = rows[rows != own]
        # BLAS has no float16.
        cosines = self.features[rows].astype(np.float32) @ self.features[own].astype(np.float32)
        return [str(name) for name in self.feature_ids[rows[np.argsort(-cosines, kind="stable")[:count]]]]

    def current(self, decisions: Mapping[int, Decision]) -> dict[str, Decision]:
        """The last decision about each image, by id, unless the image has changed since."""
        last = {decision.id: decision for decision in decisions.values()}
        sums = self.manifest["sha256"].reindex(list(last)).to_dict()
        return {id_: decision for id_, decision in last.items() if sums.get(id_) == decision.sha256}

    def num_looked_at(self, kind: str, decided: Mapping[str, Decision]) -> int:
        """How many issues of a kind concern images with a decision."""
        return int(self.by_kind[kind]["id"].isin(list(decided)).sum())

    def first_open(self, kind: str, decided: Mapping[str, Decision]) -> int:
        """Index of the first issue of a kind without a decision, else 0."""
        return int((~self.by_kind[kind]["id"].isin(list(decided))).to_numpy().argmax())

    def decide(self, id_: str, action: str, label: str = "") -> Decision:
        """Make a decision that stays valid in later runs, whatever labels they correct.

        The action is ``keep``, ``label`` or ``exclude``; ``label`` takes any class name, also a new one.
        """
        image = self.manifest.loc[id_].astype(str)
        if action == "keep" and image["corrected"]:
            # Write the corrected label again, because this decision replaces the line that corrected it.
            action, label = "label", str(image["class_name"])
        if action == "label" and label not in self.own_names:
            action = "new_class"
        label = label if action in ("label", "new_class") else ""
        return Decision(id_, str(image["sha256"]), action, label, datetime.now(UTC).isoformat(timespec="seconds"))

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        return {str(id_): (split, row) for split, of in enumerate(self.splits) for row, id_ in enumerate(of.ids)}

    @cached_property
    def _feature_rows(self) -> dict[str, int]:
        return {str(id_): row for row, id_ in enumerate(self.feature_ids)}

    @cached_property
    def _rows_of_class(self) -> dict[str, np.ndarray]:
        names = self.manifest["class_name"].reindex(self.feature_ids, fill_value="").to_numpy(str)
        return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
