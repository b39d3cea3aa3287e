import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from efficientnet_finetuning.data.audit import audit, format_audit
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.figures import audit_summary
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters

LENIENT = AuditParameters(max_excluded_fraction=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, nasty) -> Path:
    return nasty.write_nasty_folder(tmp_path_factory.mktemp("nasty"))


@pytest.fixture(scope="module")
def source(folder):
    return open_source(DatasetParameters(path=folder))


@pytest.fixture(scope="module")
def findings(source, folder) -> pd.DataFrame:
    return inspect_images(source, DatasetParameters(path=folder), 100.0, seed=0)


@pytest.fixture(scope="module")
def manifest(findings, folder, nasty) -> pd.DataFrame:
    return build_manifest(findings, nasty.CLASSES, DatasetParameters(path=folder), LENIENT, seed=0)


@pytest.fixture(scope="module")
def report(source, manifest, folder, nasty):
    return audit(source, manifest, nasty.CLASSES, DatasetParameters(path=folder))


def test_every_planted_fault_is_found_and_nothing_else(findings, nasty):
    found = {}
    for row in findings[findings["excluded"] != ""].itertuples():
        found.setdefault(row.excluded.split(":")[0], set()).add(row.id)
    assert found == {kind: set(ids) for kind, ids in nasty.PLANTED.items()}


def test_every_kind_of_image_is_known_by_its_content(findings, nasty):
    formats = findings.set_index("id")["format"]
    assert {name: formats[name] for name in nasty.ODD} == nasty.ODD
    turned = findings.set_index("id").loc["train/owl/turned.jpg"]
    assert (turned["width"], turned["height"]) == (48, 64)


def test_what_is_excluded_is_in_no_split_and_the_rest_can_be_prepared(source, manifest, nasty):
    assert ((manifest["split"] == "") == (manifest["excluded"] != "")).all()
    examples = prepare(source, manifest, 3, "train", image_size=32)
    pixels = np.stack(list(examples.images))
    assert len(pixels) == (manifest["split"] == "train").sum()
    assert set(nasty.ODD) <= set(examples.ids)


def test_the_report_counts_what_was_planted(report, source, nasty):
    assert {kind: found["count"] for kind, found in report["excluded"].items()} == {
        kind: len(ids) for kind, ids in nasty.PLANTED.items()
    }
    assert report["ignored_entries"] == source.ignored == nasty.IGNORED
    assert report["near_duplicates"]["count"] == 1
    pair = report["near_duplicates"]["first"][0]
    assert (pair["first"], pair["second"]) == nasty.NEAR
    (conflict,) = report["conflicting_labels"]["first"]
    assert [image["id"] for image in conflict] == nasty.PLANTED["conflicting_labels"]
    assert report["channels"]["CMYK"] == 1
    assert report["classes"]["owl"]["test"] == 6
    assert sum(report["sides"].values()) == sum(report["aspect_ratios"].values()) == sum(report["formats"].values())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_report_reads_well_and_can_be_drawn(report, manifest):
    text = format_audit(report)
    assert "excluded, too large: 2, first train/dog/bomb.png (more than 178 megapixels)" in text
    assert "ignored, hidden: 2" in text
    assert "of nearly equal images, such as " in text
    figure = audit_summary(report, manifest)
    assert [axes.get_title() for axes in figure.axes][2] == "excluded images: 16"


def test_the_default_limit_stops_this_folder(findings, folder, nasty):
    with pytest.raises(InputError, match="would be excluded"):
        build_manifest(findings, nasty.CLASSES, DatasetParameters(path=folder), AuditParameters(), seed=0)


def test_fail_stops_at_bad_images_and_not_at_copies(findings, folder, nasty):
    with pytest.raises(InputError, match=r"^10 images cannot be used"):
        build_manifest(
            findings, nasty.CLASSES, DatasetParameters(path=folder), AuditParameters(on_bad_image="fail"), seed=0
        )


def test_a_bomb_costs_no_memory(folder):
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from efficientnet_finetuning.data.inspection import look\n"
        "from efficientnet_finetuning.data.sources import EncodedImage\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in ('bomb', 'poster'):\n"
        "    print(look(EncodedImage(name, Path(sys.argv[1]) / f'{name}.png', 0), 100)['excluded'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder / "train/dog")]
    *reasons, kibibytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert reasons == ["too_large: more than 178 megapixels", "too_large: 120 megapixels"]
    assert int(kibibytes) < 20_000


def test_a_read_only_folder_is_only_read(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        source = open_source(DatasetParameters(path=folder))
        inspect_images(source, DatasetParameters(path=folder), 100.0, seed=0)
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_excluded_as_unreadable(tmp_path, write_classes):
    root = write_classes(tmp_path, {"a": 3, "b": 3})
    (root / "a" / "1.png").chmod(0)
    dataset = DatasetParameters(path=root)
    findings = inspect_images(open_source(dataset), dataset, 100.0, seed=0)
    assert findings.set_index("id").loc["a/1.png", "excluded"] == "unreadable: Permission denied"


def test_a_set_that_is_known_to_be_drawn_from_imagenet_says_so(tmp_path, tfds_sets):
    tfds_sets.write_stanford_dogs(tmp_path, images_per_class_train=4, images_per_class_test=1, num_classes=3)
    dataset = DatasetParameters(name="stanford_dogs", data_dir=tmp_path)
    source = open_source(dataset)
    findings = inspect_images(source, dataset, 100.0, seed=0)
    manifest = build_manifest(findings, source.class_names, dataset, LENIENT, seed=0)
    assert any("Khosla" in warning for warning in audit(source, manifest, source.class_names, dataset)["warnings"])


def test_uneven_classes_and_missing_ones_are_told(tmp_path, write_classes):
    dataset = DatasetParameters(path=write_classes(tmp_path, {"train/a": 40, "train/b": 5, "test/a": 2}))
    source = open_source(dataset)
    findings = inspect_images(source, dataset, 100.0, seed=0)
    report = audit(source, build_manifest(findings, ("a", "b"), dataset, LENIENT, seed=0), ("a", "b"), dataset)
    assert report["missing_classes"] == {"train": [], "validation": [], "test": ["b"]}
    assert "test has no image of 1 class: b" in report["warnings"]
    assert "the test split has fewer than 5 images of 1 class, so their scores are uncertain: a" in report["warnings"]
    assert any("class_weight=balanced" in warning for warning in report["warnings"])
