"""The review page, driven by Streamlit's own harness: what is shown, what a click writes, and what is gone on with."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from efficientnet_finetuning.apps import launch
from efficientnet_finetuning.apps import review as review_page
from efficientnet_finetuning.data.corrections import Decision, read_decisions, replace_decision
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.quality.review import Review

JOB = "pets"
VERSION = "2026-01-01T00.00.00.000Z"
CLASSES = ["cat", "dog_[1](http://example.com)", "NA"]
# Images in a row of each class, by split; as features, directions by class.
COUNTS = {"train": 8, "validation": 2, "test": 2}
ISSUES = [
    ("train/cat/0.png", "label", 0.9, "dog_[1](http://example.com)", 0.93, ""),
    ("test/cat/1.png", "label", 0.8, "NA", 0.71, ""),
    ("validation/NA/0.png", "label", 0.7, "cat", 0.66, ""),
    ("train/gone/0.png", "label", 0.6, "cat", 0.6, ""),
    ("train/NA/3.png", "near_duplicate", 0.99, "", "", "train/cat/3.png"),
    ("train/NA/4.png", "dark", 0.5, "", "", ""),
]


def place(data: Path, layer: str, name: str) -> Path:
    path = data / layer / JOB / name / VERSION / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_job(data: Path, counts: dict[str, int], issues: list[tuple], size: int = 32) -> None:
    """What the runs of a job leave that the page reads."""
    generator = np.random.default_rng(0)
    rows, features = [], []
    for split, count in counts.items():
        labels = np.repeat(np.arange(len(CLASSES)), count)
        ids = np.array([f"{split}/{CLASSES[label].split('_')[0]}/{n % count}.png" for n, label in enumerate(labels)])
        images = generator.integers(0, 90, (len(ids), size, size, 3), np.uint8)
        images[np.arange(len(ids)), ..., labels] += 150
        folder = place(data, "03_primary", f"{split}_images")
        folder.mkdir()
        arrays = {"images": images, "labels": np.eye(len(CLASSES), dtype=np.uint8)[labels], "ids": ids}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        noisy = np.eye(len(CLASSES), 16)[labels] + generator.normal(0, 0.1, (len(ids), 16))
        features.append(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
        for id_, label in zip(ids, labels, strict=True):
            rows.append((id_, split, split, label, CLASSES[label], f"sum of {id_}", "", ""))
    folder = place(data, "04_feature", "review_features")
    folder.mkdir()
    np.save(folder / "features.npy", np.concatenate(features).astype(np.float16))
    np.save(folder / "ids.npy", np.array([row[0] for row in rows]))
    columns = ["id", "source_split", "split", "label", "class_name", "sha256", "excluded", "corrected"]
    pd.DataFrame(rows, columns=columns).to_csv(place(data, "02_intermediate", "manifest.csv"), index=False)
    place(data, "02_intermediate", "source.json").write_text(
        json.dumps({"kind": "files", "name": "/my pets", "class_names": CLASSES})
    )
    of = dict(zip((row[0] for row in rows), rows, strict=True))
    table = [
        (id_, of[id_][1] if id_ in of else "", kind, score, of[id_][4] if id_ in of else "", *rest)
        for id_, kind, score, *rest in issues
    ]
    columns = ["id", "split", "kind", "score", "given", "suggested", "probability", "neighbour"]
    pd.DataFrame(table, columns=columns).to_csv(place(data, "08_reporting", "image_issues.csv"), index=False)


@pytest.fixture
def data(tmp_path) -> Path:
    write_job(tmp_path / "data", COUNTS, ISSUES)
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "pets_corrections.csv"


@pytest.fixture
def visit(data, file, monkeypatch):
    """Opens the page of a job."""

    def visit(job=JOB) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["review.py", job, str(data), str(file)])
        page = AppTest.from_file(Path(launch.__file__).with_name("review.py"), default_timeout=60).run()
        assert not page.exception
        return page

    return visit


@pytest.mark.parametrize("name", ["manifest.csv", "source.json", "image_issues.csv", "ids.npy", "labels.npy"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"5", b"[]", b"one,two\n1,2\n"])
def test_what_is_stored_and_damaged_is_named(data, name, content):
    for file in data.rglob(name):
        if file.is_file():
            file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        review_page.open_review(JOB, data, place(data, "08_reporting", "image_issues.csv"))


def test_a_damaged_manifest_is_said_on_the_page(visit, data):
    place(data, "02_intermediate", "manifest.csv").write_text("")
    assert "cannot be read" in visit().error[0].value


def click(page: AppTest, key: str) -> AppTest:
    page.button(key=key).click().run()
    assert not page.exception
    return page


def said(page: AppTest) -> str:
    """All that is read on the page, without what keeps Markdown from seeing marks in it."""
    elements = [*page.markdown, *page.caption, *page.success, *page.warning, *page.error]
    return "\n".join([*(element.value for element in elements), progress(page)]).replace("\\", "")


def progress(page: AppTest) -> str:
    (bar,) = page.get("progress")
    return bar.proto.text


def test_an_issue_is_shown_with_its_classes_and_the_nearest_of_both(visit):
    page = visit()
    text = said(page)
    assert "Labelled **cat**, looks like **dog_[1](http://example.com)** (93 %)" in text
    assert "train/cat/0.png · train" in text
    assert progress(page) == "0 of 3 checked; this is number 1"
    assert "Most similar in **cat**" in text
    assert "Most similar in **dog_[1](http://example.com)**" in text
    assert len(page.get("image")) == 1 + 2 * 6
    assert page.selectbox[1].value == "dog_[1](http://example.com)"


def test_a_decision_is_written_at_once_and_the_next_issue_comes(visit, file):
    page = click(visit(), "label")
    (decision,) = read_decisions(file).values()
    assert decision[:4] == ("train/cat/0.png", "sum of train/cat/0.png", "label", CLASSES[1])
    assert decision.when.startswith("20")
    assert "test/cat/1.png" in said(page)
    click(page, "keep")
    click(page, "exclude")
    assert [(row.action, row.label) for row in read_decisions(file).values()] == [
        ("label", CLASSES[1]),
        ("keep", ""),
        ("exclude", ""),
    ]
    assert progress(page) == "3 of 3 checked; this is number 3"
    assert "All issues of this kind are checked." in said(page)
    assert "Decision: exclude the image" in said(page)
    assert page.code[0].value == (
        f"kedro run --pipelines finetune --env pets --params 'dataset.path=/my pets,dataset.corrections={file}'"
    )


def test_the_newest_decision_replaces_and_undo_brings_the_one_before_back(visit, file):
    page = click(visit(), "keep")
    click(page, "previous")
    assert "Decision: the label is right" in said(page)
    click(page, "exclude")
    (decision,) = read_decisions(file).values()
    assert decision.action == "exclude"
    click(page, "undo_last")
    (decision,) = read_decisions(file).values()
    assert decision.action == "keep"
    click(page, "undo_last")
    assert not read_decisions(file)
    assert progress(page) == "0 of 3 checked; this is number 1"
    assert page.button(key="undo_last").disabled


def test_any_class_and_a_new_one_can_be_given(visit, file):
    page = visit()
    page.selectbox[1].set_value("NA").run()
    click(page, "label")
    typed = "  zebra, striped "
    page.selectbox[1].options.append(typed)  # the harness takes no value that is not offered; a browser does
    page.selectbox[1].set_value(typed).run()
    page.selectbox[1].options.append(typed)
    click(page, "label")
    assert [(row.action, row.label) for row in read_decisions(file).values()] == [
        ("label", "NA"),
        ("new_class", "zebra, striped"),
    ]
    assert "zebra, striped" in page.selectbox[1].options, "it is offered for the next image"


def test_the_page_goes_on_where_it_was_left(visit, file):
    click(visit(), "keep")
    page = visit()
    assert progress(page) == "1 of 3 checked; this is number 2"
    # An image that has changed since has not been looked at.
    replace_decision(file, "train/cat/0.png", Decision("train/cat/0.png", "another sum", "keep"))
    assert progress(visit()) == "0 of 3 checked; this is number 1"


def test_other_kinds_show_the_neighbour_and_suggest_nothing(visit):
    page = visit()
    page.selectbox[0].set_value("near_duplicate").run()
    assert "Most similar of all, in **cat**: train/cat/3.png" in said(page)
    assert len(page.get("image")) == 1 + 1 + 6
    assert page.button(key="label").disabled
    click(page, "exclude")
    page.selectbox[0].set_value("dark").run()
    assert "Labelled **NA**\n" in said(page)
    assert progress(page) == "0 of 1 checked; this is number 1"


def test_a_file_that_is_none_is_named_and_stays(visit, file):
    page = visit()
    file.write_text("something else")
    click(page, "keep")
    assert "lacks id" in page.error[0].value.replace("\\", "")
    assert file.read_text() == "something else"


def test_a_corrected_label_that_is_kept_stays_corrected(data):
    review = open_review(data)
    review.manifest.loc["train/cat/0.png", ["class_name", "corrected"]] = ["zebra", "was cat"]
    decision = review.decide("train/cat/0.png", "keep")
    assert (decision.action, decision.label) == ("new_class", "zebra")
    assert review.decide("train/cat/1.png", "keep").action == "keep"


def open_review(data: Path) -> Review:
    return Review.open(
        place(data, "08_reporting", "image_issues.csv"),
        place(data, "02_intermediate", "manifest.csv"),
        CLASSES,
        [place(data, "03_primary", f"{split}_images") for split in COUNTS],
        place(data, "04_feature", "review_features"),
    )


def test_neighbours_are_the_nearest_of_their_class_and_never_the_image_itself(data):
    review = open_review(data)
    id_ = "train/cat/0.png"
    features = dict(zip(review.feature_ids, np.asarray(review.features, np.float32), strict=True))
    others = [name for name in features if "/NA/" in name]
    expected = sorted(others, key=lambda name: -float(features[name] @ features[id_]))[:4]
    assert review.nearest(id_, "NA", 4) == expected
    assert id_ not in review.nearest(id_, "cat", 100)
    assert review.nearest(id_, "owl", 4) == []
    assert review.nearest("nobody", "cat", 4) == []


def test_without_issues_a_sentence_says_what_to_run(data, visit, file):
    with pytest.raises(InputError, match=r"'pets'\? Make one: `kedro run --pipelines review --env pet`"):
        launch.command("review", "pet", data, str(file))
    arguments = launch.command("review", JOB, data, str(file))
    assert "--server.address=127.0.0.1" in arguments
    assert arguments[-4:] == ["--", JOB, str(data), str(file)]
    assert "kedro run --pipelines review --env pet" in visit("pet").error[0].value.replace("\\", "")
