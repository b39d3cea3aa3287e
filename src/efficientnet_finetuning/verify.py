"""Check a bundle against its receipt: ``python -m efficientnet_finetuning.verify <bundle>``.

The bundle must contain exactly the recorded files, unchanged. This needs only Python's standard library, so the file
can be copied and run anywhere. With ``--data``, the metrics are computed again on the test images and must equal those
of the receipt within 1e-6.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECEIPT = "receipt.json"
STATEMENT, PROVENANCE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
_TOLERANCE = 1e-6


def main() -> None:
    """Print the errors and exit with 1, or print what was checked and exit with 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path, help="folder that holds receipt.json")
    parser.add_argument("--data", type=Path, help="the project's folder `data`, to recompute the metrics")
    options = parser.parse_args()
    faults = list(verify(options.bundle))
    if not faults and options.data:
        faults = list(verify_metrics(options.bundle, options.data))
    if faults:
        sys.exit("\n".join(f"{options.bundle}: {fault}" for fault in faults))
    receipt = read_receipt(options.bundle)
    told = " The recomputed metrics are the same." if options.data else ""
    print(f"{options.bundle}: all {len(receipt['subject'])} files match the receipt.{told}")  # noqa: T201


def verify(bundle: Path) -> Iterator[str]:
    """The differences between a bundle and its receipt, if any."""
    try:
        receipt = read_receipt(bundle)
    except ValueError as error:
        yield str(error)
        return
    recorded = {subject["name"]: subject["digest"]["sha256"] for subject in receipt["subject"]}
    for name, expected in recorded.items():
        file = bundle / name
        try:
            if not file.resolve().is_relative_to(bundle.resolve()):
                yield f"the receipt names {name}, which is outside the bundle"
            elif not file.is_file():
                yield f"{name} is missing"
            elif _sha256(file) != expected:
                yield f"{name} differs from the receipt (other SHA-256)"
        except (OSError, RuntimeError, ValueError) as error:  # a link to itself, or a name that no file can have
            yield f"{name!a} cannot be read: {error}"
    for file in sorted(bundle.rglob("*")):
        name = file.relative_to(bundle).as_posix()
        if file.is_file() and name not in recorded and name != RECEIPT:
            yield f"{name} is not in the receipt"


def read_receipt(bundle: Path) -> dict[str, Any]:
    """The receipt of a bundle.

    Raises:
        ValueError: it is missing, incomplete, or of another version.
    """
    try:
        receipt: dict[str, Any] = json.loads((bundle / RECEIPT).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{RECEIPT} cannot be read: {error.strerror}. Is this the folder of a bundle?") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{RECEIPT} is not JSON: {error}") from error
    try:
        kinds = receipt["_type"], receipt["predicateType"]
        complete = all(
            len(subject["digest"]["sha256"]) == 64 and subject["name"] and isinstance(subject["name"], str)
            for subject in receipt["subject"]
        )
        complete = complete and {"manifest", "test images"} <= _dependencies(receipt).keys()
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{RECEIPT} is not complete: {error} is missing or has another type") from error
    if kinds != (STATEMENT, PROVENANCE):
        raise ValueError(f"{RECEIPT} has an unknown version: {kinds[0]}, {kinds[1]}")
    if not complete:
        raise ValueError(f"{RECEIPT} is not complete: a SHA-256 of a file, the manifest or the test images is missing")
    return receipt


def verify_metrics(bundle: Path, data: Path) -> Iterator[str]:
    """Metrics of a bundle's classifier on the test images that differ from the receipt."""
    # The rest of this file runs without the package.
    from efficientnet_finetuning.bundle.evidence import find_test_images, measure

    receipt = read_receipt(bundle)
    test = find_test_images(data, str(_dependencies(receipt)["test images"]))
    if test is None:
        yield f"the metrics cannot be recomputed, because the test images of the receipt are not in {data}"
        return
    found = measure(bundle / "classifier.keras", test)
    for name, expected in receipt["predicate"]["buildDefinition"]["internalParameters"]["metrics"].items():
        if isinstance(expected, float) and name in found and not abs(found[name] - expected) <= _TOLERANCE:
            yield f"{name} is {found[name]:.6f}, but {expected:.6f} in the receipt"


def _dependencies(receipt: dict[str, Any]) -> dict[str, Any]:
    """SHA-256 by name of what the model was made from."""
    dependencies = receipt["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {item["name"]: item.get("digest", {}).get("sha256") for item in dependencies}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    main()
