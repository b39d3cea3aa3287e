"""The receipt: contents and origin of a bundle, in a standard format.

An in-toto Statement (https://in-toto.io/Statement/v1) lists every file with its SHA-256; its predicate follows SLSA's
provenance (https://slsa.dev/provenance/v1): how, from what, and when the model was made.

Sign and verify a bundle without a network (extra ``sign``; ``openssl ecparam -name prime256v1 -genkey -noout -out
private.pem`` makes a key)::

    model_signing sign key <bundle> --private_key private.pem --signature bundle.sig
    model_signing verify key <bundle> --public_key public.pem --signature bundle.sig
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.storage import checksum, digest
from efficientnet_finetuning.verify import PROVENANCE, STATEMENT

_BUILD_TYPE = "urn:efficientnet-finetuning:kedro-run:1"
_LIBRARIES = ("efficientnet-finetuning", "kedro", "keras", "numpy", "pandas", "pillow", "scipy", "tensorflow")


def make_receipt(
    files: Mapping[str, bytes],
    *,
    parameters: Mapping[str, Any],
    lineage: Mapping[str, Mapping[str, Any]],
    manifest: pd.DataFrame,
    test: Examples,
    metrics: Mapping[str, Any],
    project: Path,
) -> dict[str, Any]:
    """Make the receipt of a bundle's files.

    Args:
        files: all files of the bundle except the receipt, by path.
        parameters: of the run, by name.
        lineage: ``version`` and ``content`` of each dataset that the model depends on.
        manifest: every image with its split and SHA-256.
        test: the test images of ``metrics``, so that others can recompute them.
        metrics: of the model.
        project: folder of the project, for its commit.
    """
    splits = manifest[manifest["split"] != ""].groupby("split")["id"]
    of_data = {
        "manifest": _sha256(manifest.to_csv(index=False).encode()),
        **{f"ids of {split}": digest(sorted(ids.astype(str))) for split, ids in splits},
        "test images": fingerprint_of_examples(test),
    }
    lock = project / "requirements.lock"
    if lock.is_file():
        of_data["requirements.lock"] = checksum(lock)
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _sha256(files[name])}} for name in sorted(files)],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": dict(parameters),
                "internalParameters": {"metrics": dict(metrics), "lineage": {k: dict(v) for k, v in lineage.items()}},
                "resolvedDependencies": [
                    {"name": "code", "digest": code_of(project)},
                    *({"name": name, "digest": {"sha256": value}} for name, value in of_data.items()),
                    *({"name": f"{name} {version(name)}"} for name in _LIBRARIES),
                ],
            },
            "runDetails": {
                "builder": {"id": f"urn:efficientnet-finetuning:{version('efficientnet-finetuning')}"},
                "metadata": {
                    "invocationId": lineage.get("champion_model", {}).get("version", ""),
                    "finishedOn": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            },
        },
    }


def fingerprint_of_examples(examples: Examples) -> str:
    """SHA-256 of prepared images, labels and ids."""
    images, labels = examples.arrays
    found = hashlib.sha256()
    for start in range(0, len(images), 256):
        found.update(np.ascontiguousarray(images[start : start + 256]).data)
    found.update(np.ascontiguousarray(labels).data)
    found.update("\n".join(examples.ids.astype(str)).encode())
    return found.hexdigest()


def code_of(project: Path) -> dict[str, str]:
    """The project's commit, ``gitCommit``, and the SHA-256 of uncommitted changes; empty without git."""
    commit, changes = commit_of(project), _git(project, "diff", "HEAD")
    if commit is None or changes is None:
        return {}
    about = {"gitCommit": commit}
    return about | {"sha256OfUncommittedDiff": _sha256(changes)} if changes else about


def commit_of(project: Path) -> str | None:
    """The current commit of a folder's repository; ``None`` without git."""
    found = _git(project, "rev-parse", "HEAD")
    return None if found is None else found.decode().strip()


def as_bytes(receipt: Mapping[str, Any]) -> bytes:
    """The content of the receipt's file."""
    return json.dumps(receipt, indent=1, ensure_ascii=False, default=str).encode()


def _git(project: Path, *arguments: str) -> bytes | None:
    try:
        return subprocess.run(["git", *arguments], cwd=project, capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
