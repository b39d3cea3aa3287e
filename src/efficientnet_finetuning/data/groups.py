"""Groups: images that show the same thing and must stay in one split."""

import re
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.data.duplicates import distinct_hashes, near_hashes
from efficientnet_finetuning.errors import InputError, shorten
from efficientnet_finetuning.parameters import DatasetParameters


def group_images(findings: pd.DataFrame, pattern: str | None, near_duplicates: bool = True) -> pd.Series:
    """Put images into groups: those that the user names, and those that look the same.

    Near duplicates, and the groups that contain them, are joined into one group.

    Args:
        findings: of :func:`~efficientnet_finetuning.data.inspection.inspect_images`, with the source's ``group``.
        pattern: a regular expression that is searched in each id; its group in parentheses is the name.
        near_duplicates: whether to join near duplicates.

    Returns:
        The group's name for each image: the first name that the user gave to any of its images, else its first id.

    Raises:
        InputError: the pattern matches no id.
    """
    named = findings["group"] if pattern is None else names_by_pattern(findings["id"], pattern)
    if pattern is not None and (named == "").all():
        raise InputError(
            f"dataset.group_pattern ({pattern}) matches no id. Ids are paths below dataset.path, or numbers in a TFDS "
            f"split: {shorten(list(findings['id']), 3)}. The part in parentheses must match the name of the group."
        )
    own = findings["id"].where(named == "", named)
    joined, names = pd.factorize(own)
    if near_duplicates:
        seen = ((findings["excluded"] == "") & (findings["perceptual_hash"] != "")).to_numpy()
        looks = len(names) + _looks(findings["perceptual_hash"][seen])
        joined = _connected(np.column_stack([joined[seen], looks]), len(names) + len(looks))[joined]
    given = named.where(named != "").groupby(joined).transform("first")
    return given.fillna(own.groupby(joined).transform("first")).astype(str)


def describe_groups(manifest: pd.DataFrame, dataset: DatasetParameters) -> dict[str, Any]:
    """Summarize the groups for the audit, as JSON.

    Returns:
        ``count``: groups with more than one used image; ``images``: images in them; ``largest``: ``name`` and
        ``images`` of the largest group; ``unmatched``: ids that ``dataset.group_pattern`` does not match.
    """
    used = manifest[manifest["split"] != ""]
    sizes = used["group"].value_counts()
    several = sizes[sizes > 1]
    unmatched: list[str] = []
    if dataset.group_pattern is not None:
        unmatched = list(manifest["id"][names_by_pattern(manifest["id"], dataset.group_pattern) == ""])
    return {
        "count": len(several),
        "images": int(several.sum()),
        "largest": {"name": sizes.index[0], "images": int(sizes.iloc[0])} if len(sizes) else None,
        "unmatched": unmatched,
    }


def names_by_pattern(ids: pd.Series, pattern: str) -> pd.Series:
    """The text that the pattern's group matches in each id; empty without a match."""
    found = map(re.compile(pattern).search, ids)
    return pd.Series([match[1] or "" if match else "" for match in found], ids.index, dtype=str)


def groups_of(manifest: pd.DataFrame, ids: np.ndarray) -> np.ndarray:
    """The group of each image as a number ``(N,)``, looked up by id."""
    return pd.factorize(manifest.set_index("id")["group"].loc[ids])[0]


def _looks(hashes: pd.Series) -> np.ndarray:
    """A number for each perceptual hash ``(N,)``; near duplicates, also indirect ones, share it."""
    distinct, places = distinct_hashes(hashes)
    looks = np.arange(len(distinct))
    for pairs in near_hashes(distinct):
        looks = _connected(looks[pairs], len(distinct))[looks]
    return looks[places]


def _connected(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    """The connected component of each node of a graph, ``(num_nodes,)``; edges are ``(E, 2)``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), np.int8), tuple(edges.T)), shape=(num_nodes, num_nodes))
    components: np.ndarray = connected_components(graph, directed=False)[1]
    return components
