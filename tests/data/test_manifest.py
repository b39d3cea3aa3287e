import hashlib

import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.data.inspection import COLUMNS, inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.data.splits import assign_splits
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters


def manifest_of(root, seed: int = 0, audit: AuditParameters | None = None, **dataset) -> pd.DataFrame:
    audit = audit or AuditParameters()
    parameters = DatasetParameters(path=root, **dataset)
    source = open_source(parameters)
    findings = inspect_images(source, parameters, audit.max_megapixels, seed)
    return build_manifest(findings, source.class_names, parameters, audit, seed)


def rows(counts: dict[int, int], split: str = "train") -> pd.DataFrame:
    labels = [label for label, count in counts.items() for _ in range(count)]
    ids = [f"{split}/{i}" for i in range(len(labels))]
    return pd.DataFrame({"id": ids, "split": split, "label": labels, "group": ids})


def test_a_manifest_describes_every_image_as_it_lies_on_disk(tmp_path, write_classes):
    root = write_classes(tmp_path, {"train/NA": 10, "train/b": 10, "test/NA": 1, "test/b": 1})
    Image.linear_gradient("L").resize((19, 17)).save(root / "train" / "b" / "3.png")
    manifest = manifest_of(root)
    assert list(manifest) == ["id", "source_split", "split", *COLUMNS[2:], "corrected"]
    assert len(manifest) == 22
    assert list(manifest["id"][:2]) == ["train/b/0.png", "train/b/1.png"]
    for row in manifest.itertuples():
        assert row.sha256 == hashlib.sha256((root / row.id).read_bytes()).hexdigest()
        assert (row.width, row.height) == ((19, 17) if row.id == "train/b/3.png" else (12, 8))
        assert row.class_name == row.id.split("/")[1]
        assert row.label == ("b", "NA").index(row.class_name)


def test_a_sets_own_splits_are_untouched_and_validation_is_cut_out_of_train(tmp_path, write_classes):
    root = write_classes(tmp_path, {f"{split}/{name}": 10 for split in ("train", "test") for name in "ab"})
    manifest = manifest_of(root, validation_fraction=0.3)
    assert (manifest.loc[manifest["source_split"] == "test", "split"] == "test").all()
    cut = manifest[manifest["source_split"] == "train"]
    assert cut.groupby(["class_name", "split"]).size().to_dict() == {
        (name, split): count for name in "ab" for split, count in (("train", 7), ("validation", 3))
    }


def test_a_class_may_be_missing_from_the_sets_own_test_split_but_not_from_train():
    names = ("a", "b")
    splits = assign_splits(
        pd.concat([rows({0: 10, 1: 10}), rows({0: 2}, "test")], ignore_index=True), names, 0.1, 0.2, seed=0
    )
    assert splits["split"].value_counts().to_dict() == {"train": 18, "validation": 2, "test": 2}
    with pytest.raises(InputError, match=r"b has no image in train \(2 in all\)"):
        assign_splits(pd.concat([rows({0: 10}), rows({1: 2}, "test")], ignore_index=True), names, 0.1, 0.2, seed=0)


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.25, 0.5)])
def test_every_class_gives_its_fraction_the_test_split_first(validation, test):
    splits = assign_splits(rows({0: 100, 1: 40}), ("a", "b"), validation, test, seed=1)
    counts = splits.groupby(["label", "split"]).size()
    for label, total in ((0, 100), (1, 40)):
        assert counts[label, "test"] == total * test
        assert counts[label, "validation"] == round((total - total * test) * validation)
        assert counts[label].sum() == total


def test_the_seed_alone_decides_the_cut():
    given = rows({0: 50, 1: 50})
    first = assign_splits(given, ("a", "b"), 0.1, 0.2, seed=7)
    assert first.equals(assign_splits(given, ("a", "b"), 0.1, 0.2, seed=7))
    assert not first.equals(assign_splits(given, ("a", "b"), 0.1, 0.2, seed=8))
    assert (given["split"] == "train").all()


def test_a_class_that_would_be_missing_from_a_split_is_named_with_the_way_out():
    with pytest.raises(InputError) as caught:
        assign_splits(rows({0: 50, 1: 2}), ("many", "few", "none"), 0.1, 0.2, seed=0)
    message = str(caught.value)
    assert message.startswith("Every class needs images in each split: few has no image in train (2 in all), ")
    assert "none has no image in train (0 in all)" in message
    assert "many" not in message
    assert "change dataset.validation_fraction (0.1) and dataset.test_fraction (0.2)" in message


@pytest.fixture
def damaged(tmp_path, write_classes):
    root = write_classes(tmp_path, {"a": 10, "b": 10})
    (root / "a" / "4.png").write_text("not an image")
    (root / "b" / "5.png").write_bytes(b"")
    return root


def test_damaged_images_are_left_out_with_a_reason_and_the_rest_is_split(damaged):
    manifest = manifest_of(damaged, audit=AuditParameters(max_excluded_fraction=0.1)).set_index("id")
    excluded = manifest[manifest["excluded"] != ""]
    assert excluded["excluded"].to_dict() == {
        "a/4.png": "undecodable: not a JPEG, PNG, BMP, GIF, WEBP or TIFF file",
        "b/5.png": "empty: the file has no bytes",
    }
    assert (excluded["split"] == "").all()
    assert set(manifest.loc[manifest["excluded"] == "", "split"]) == {"train", "validation", "test"}


def test_fail_names_every_damaged_image(damaged):
    with pytest.raises(InputError) as caught:
        manifest_of(damaged, audit=AuditParameters(on_bad_image="fail"))
    message = str(caught.value)
    assert message.startswith("2 images cannot be used: a/4.png (undecodable: ")
    assert "b/5.png (empty: " in message
    assert "audit.on_bad_image=exclude" in message


def test_more_exclusions_than_allowed_stop_the_run_with_the_first_ten(tmp_path, write_classes):
    root = write_classes(tmp_path, {"a": 100, "b": 100})
    for index in range(12):
        (root / "a" / f"{index}.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        manifest_of(root)
    message = str(caught.value)
    assert message.startswith("12 of 200 images (6.0 %) would be excluded (12 empty), more than audit.")
    assert message.count("(empty: the file has no bytes)") == 10
    assert "and 2 more" in message
    manifest = manifest_of(root, audit=AuditParameters(max_excluded_fraction=0.06))
    assert (manifest["excluded"] != "").sum() == 12


def test_an_image_with_a_damaged_header_is_named(tmp_path, write_classes):
    root = write_classes(tmp_path, {"a": 10, "b": 10})
    file = root / "a" / "4.png"
    damaged = bytearray(file.read_bytes())
    damaged[11] = 1  # the length of the PNG's first chunk
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=r"1 image cannot be used: a/4\.png"):
        manifest_of(root, audit=AuditParameters(on_bad_image="fail"))


def test_a_subset_is_the_same_share_of_every_class_and_split_by_the_seed(tmp_path, write_classes):
    root = write_classes(tmp_path, {"train/a": 40, "train/b": 20, "test/a": 8, "test/b": 2})

    def counts(**dataset):
        manifest = manifest_of(root, **dataset)
        return manifest.groupby(["source_split", "class_name"]).size().to_dict()

    assert counts(fraction=0.25) == {("train", "a"): 10, ("train", "b"): 5, ("test", "a"): 2, ("test", "b"): 1}
    assert counts(max_per_class=5) == {("train", "a"): 5, ("train", "b"): 5, ("test", "a"): 5, ("test", "b"): 2}
    chosen = [set(manifest_of(root, seed=seed, max_per_class=5)["id"]) for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
