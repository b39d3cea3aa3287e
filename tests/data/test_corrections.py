"""Corrections: what a file of decisions changes in a set, and what is said of a file that cannot be applied."""

import hashlib
import logging
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.data.audit import audit
from efficientnet_finetuning.data.corrections import Decision, read_corrections, read_decisions, replace_decision
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.sources import check_dataset, fingerprint, open_source
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters

HEADER = "id,sha256,action,label,when\n"


@pytest.fixture
def photos(tmp_path, write_classes) -> Path:
    return write_classes(tmp_path / "photos", {"cat": 20, "größe, XL": 20})


def line(root: Path, id_: str, action: str, label: str = "") -> str:
    quoted = f'"{id_}"' if "," in id_ else id_
    return f"{quoted},{hashlib.sha256((root / id_).read_bytes()).hexdigest()},{action},{label},\n"


def write(root: Path, *lines: str, encoding: str = "utf-8") -> Path:
    file = root.parent / "corrections.csv"
    file.write_text(HEADER + "".join(lines), encoding=encoding)
    return file


def apply(root: Path, file: Path | None, limits: AuditParameters | None = None, **dataset):
    """The manifest by id, and the audit."""
    parameters = DatasetParameters(path=root, corrections=file, **dataset)
    source = open_source(parameters)
    findings = inspect_images(source, parameters, 100, 0)
    corrections, names = read_corrections(file, source.class_names)
    limits = limits or AuditParameters(max_excluded_fraction=0)
    manifest = build_manifest(findings, tuple(names), parameters, limits, 0, corrections)
    return manifest.set_index("id"), audit(source, manifest, names, parameters, corrections)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_labels_change_and_images_are_left_out_and_nothing_else_moves(photos, encoding):
    before, _ = apply(photos, None)
    file = write(
        photos,
        line(photos, "cat/0.png", "label", '"größe, XL"'),
        line(photos, "cat/1.png", "exclude"),
        line(photos, "cat/2.png", "keep"),
        line(photos, "größe, XL/3.png", "label", "cat"),
        encoding=encoding,
    )
    content = file.read_bytes()
    after, report = apply(photos, file)
    assert file.read_bytes() == content
    assert after.loc["cat/0.png", ["class_name", "label", "corrected"]].tolist() == ["größe, XL", 1, "was cat"]
    assert after.loc["größe, XL/3.png", ["class_name", "label", "corrected"]].tolist() == ["cat", 0, "was größe, XL"]
    left_out = after.loc["cat/1.png"]
    assert left_out["excluded"] == "corrected: left out by corrections.csv"
    assert (left_out["split"], left_out["class_name"], left_out["corrected"]) == ("", "cat", "was cat")
    untouched = after.drop(["cat/0.png", "cat/1.png", "größe, XL/3.png"])
    pd.testing.assert_frame_equal(untouched, before.loc[untouched.index])
    assert after.loc["cat/0.png", "split"] == before.loc["cat/0.png", "split"], "a test image stays one"
    assert (report["relabelled"], report["excluded"]["corrected"]["count"], report["used"]) == (2, 1, 39)
    assert [warning for warning in report["warnings"] if "fewer than 5 images" not in warning] == []


def test_what_somebody_left_out_is_no_bad_image(photos):
    (photos / "cat" / "bad.png").write_bytes(b"no image")
    strict = AuditParameters(on_bad_image="fail", max_excluded_fraction=0)
    with pytest.raises(InputError, match="1 image"):
        apply(photos, None, strict)
    after, _ = apply(photos, write(photos, line(photos, "cat/bad.png", "exclude")), strict)
    assert after.loc["cat/bad.png", "excluded"].startswith("corrected: ")


def test_an_unknown_class_is_refused_by_its_lines_with_what_was_meant(photos):
    file = write(photos, line(photos, "cat/0.png", "keep"), line(photos, "cat/1.png", "label", "catt"))
    with pytest.raises(InputError) as raised:
        read_corrections(file, ["cat", "dog"])
    assert "line 3 (catt). Did you mean 'cat'?" in str(raised.value)
    assert "write new_class" in str(raised.value)


def test_a_class_is_known_by_its_name_whatever_its_unicode_form_and_the_blanks_around_it(photos):
    after, _ = apply(photos, write(photos, line(photos, "cat/0.png", "label", '" gro\u0308ße, XL"')))
    assert after.loc["cat/0.png", "class_name"] == "größe, XL"
    corrections, _ = read_corrections(write(photos, line(photos, "cat/0.png", "label", " odd ")), ["cat", " odd "])
    assert list(corrections["label"]) == [" odd "]


def test_a_new_class_that_is_said_to_be_one_gets_images_in_every_split_that_is_cut(photos):
    before, _ = apply(photos, None)
    train = [id_ for id_ in before.index[before["split"] == "train"] if id_.startswith("cat")][:4]
    lines = [line(photos, train[0], "new_class", "zebra"), *(line(photos, id_, "label", "zebra") for id_ in train[1:])]
    after, report = apply(photos, write(photos, *lines))
    zebras = after[after["class_name"] == "zebra"]
    assert set(zebras["label"]) == {2}
    assert zebras["split"].value_counts().to_dict() == {"train": 2, "validation": 1, "test": 1}
    assert list(report["classes"]) == ["cat", "größe, XL", "zebra"]
    others = after.drop(train)
    pd.testing.assert_frame_equal(others, before.loc[others.index])


def test_a_new_class_of_one_image_is_refused(photos):
    with pytest.raises(InputError, match="zebra has no image in"):
        apply(photos, write(photos, line(photos, "cat/0.png", "new_class", "zebra")))


def test_a_class_that_has_lost_all_its_images_is_refused(photos):
    lines = [line(photos, f"größe, XL/{index}.png", "label", "cat") for index in range(20)]
    with pytest.raises(InputError, match="größe, XL has no image in train"):
        apply(photos, write(photos, *lines))


def test_given_splits_are_not_changed_by_a_new_class(tmp_path, write_classes):
    root = write_classes(tmp_path / "photos", {f"{split}/{name}": 8 for split in ("train", "test") for name in "ab"})
    before, _ = apply(root, None)
    ids = [f"train/a/{index}.png" for index in range(4)]
    after, report = apply(root, write(root, *(line(root, id_, "new_class", "c") for id_ in ids)))
    assert after["split"].eq("test").equals(before["split"].eq("test"))
    assert report["missing_classes"]["test"] == ["c"]


def test_of_several_lines_about_an_image_the_last_counts_and_their_number_is_said(photos, caplog):
    lines = [
        line(photos, "cat/0.png", "label", "nonsense"),
        line(photos, "cat/0.png", "exclude"),
        line(photos, "cat/0.png", "keep"),
    ]
    with caplog.at_level(logging.WARNING):
        after, _ = apply(photos, write(photos, *lines))
    assert after.loc["cat/0.png", "excluded"] == ""
    assert "later lines about the same images replace 2 lines" in caplog.text


def test_a_changed_image_and_one_that_is_gone_are_named_and_ignored(photos):
    file = write(photos, line(photos, "cat/0.png", "exclude"), line(photos, "cat/1.png", "exclude"))
    Image.new("RGB", (12, 8), "red").resize((20, 20)).save(photos / "cat" / "0.png")
    (photos / "cat" / "1.png").unlink()
    after, report = apply(photos, file, AuditParameters(max_excluded_fraction=1))
    assert after.loc["cat/0.png", "corrected"] == ""
    assert [warning for warning in report["warnings"] if "fewer than 5 images" not in warning] == [
        "the run ignored 1 correction, because the image has changed (its SHA-256 differs): cat/0.png",
        "the run ignored 1 correction, because the image is gone: cat/1.png",
    ]


def test_what_a_smoke_run_leaves_out_is_not_said_to_be_gone(photos):
    file = write(photos, *(line(photos, f"cat/{index}.png", "keep") for index in range(20)))
    _, report = apply(photos, file, max_per_class=5)
    assert [warning for warning in report["warnings"] if "fewer than 5 images" not in warning] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ((HEADER + "a,1,keep,,\nb,1,label,größe,\n").encode("latin-1"), ["is not UTF-8: line 3", "Save it as CSV"]),
        (b"id;sha256;action;label;when\n", ["lacks id, sha256", "separated by commas"]),
        (b"", ["lacks id"]),
        ((HEADER + "a,1,keep,,\nb,1,lable,cat,\n").encode(), ["line 3 (unknown action 'lable'", "'label'?", "exclude"]),
        ((HEADER + ",1,keep,,\na,1,label,,\n").encode(), ["line 2 (no id), line 3 (label without a label)"]),
        ((HEADER + "a,b.png,1,keep,,\n").encode(), ["more fields than columns in line 2", "quotes"]),
    ],
    ids=["latin-1", "semicolons", "empty", "action", "gaps", "comma"],
)
def test_a_file_that_cannot_be_applied_says_where_and_what_to_do(tmp_path, content, expected):
    file = tmp_path / "corrections.csv"
    file.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_decisions(file)
    assert str(file) in str(raised.value)
    assert all(part in str(raised.value) for part in expected), raised.value
    with pytest.raises(InputError):
        replace_decision(file, "a", None)
    assert file.read_bytes() == content, "what is not understood is not written over"


def test_a_file_that_is_not_there_is_refused_before_any_work(photos):
    write(photos)
    with pytest.raises(InputError, match=r"dataset.corrections: .*Did you mean 'corrections.csv'"):
        check_dataset(DatasetParameters(path=photos, corrections=photos.parent / "correction.csv"))


def test_corrections_among_the_images_do_not_count_as_raw_images(photos):
    file = photos / "corrections.csv"
    file.write_text(HEADER)
    dataset = DatasetParameters(path=photos, corrections=file)
    before = fingerprint(dataset)
    file.write_text(HEADER + line(photos, "cat/0.png", "exclude"))
    assert fingerprint(dataset) == before
    os.utime(photos / "cat" / "0.png", (0, 0))
    assert fingerprint(dataset) != before


def test_a_decision_takes_the_place_of_earlier_ones_and_survives_the_file(tmp_path):
    file = tmp_path / "there" / "corrections.csv"
    odd = Decision('a,"b".png', "1", "label", "größe, XL", "2026-01-01T00:00:00+00:00")
    replace_decision(file, odd.id, odd)
    replace_decision(file, "NA", Decision("NA", "2", "exclude"))
    replace_decision(file, odd.id, odd._replace(action="keep", label=""))
    assert list(read_decisions(file).values()) == [
        Decision("NA", "2", "exclude"),
        odd._replace(action="keep", label=""),
    ]
    replace_decision(file, odd.id, None)
    assert list(read_decisions(file).values()) == [Decision("NA", "2", "exclude")]
    assert list(file.parent.iterdir()) == [file], "no temporary file is left"
