"""Copies of a set with its corrected labels."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.bundle.corrected_set import class_folder, copy_corrected
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DatasetParameters

VERSION = "2026-01-01T00.00.00.000Z"


@pytest.fixture
def data(tmp_path) -> Path:
    """A job of six photographs, one of them left out, one relabelled as another of its name."""
    photos = tmp_path / "photos"
    for index, name in enumerate(("cat/0", "cat/1", "cat/2", "big dog/0", "big dog/1", "big dog/2")):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(photos / f"{name}.png")
    source = open_source(DatasetParameters(path=photos))
    rows = [(id_, "train", "train", source.class_names[label], "PNG") for id_, label in source.labels("train")]
    manifest = pd.DataFrame(rows, columns=["id", "source_split", "split", "class_name", "format"]).set_index("id")
    manifest.loc["cat/0.png", "class_name"] = "big dog"
    manifest.loc["cat/1.png", "split"] = ""
    manifest.loc["cat/2.png", ["split", "class_name"]] = ["test", "../NA: new"]
    for name in ("manifest.csv", "source.json"):
        (tmp_path / "data" / "02_intermediate" / "pets" / name / VERSION).mkdir(parents=True)
    place = tmp_path / "data" / "02_intermediate" / "pets"
    manifest.to_csv(place / "manifest.csv" / VERSION / "manifest.csv")
    (place / "source.json" / VERSION / "source.json").write_text(json.dumps(source.describe()))
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["manifest.csv", "source.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"kind": "another"}', b"one,two\n1,2\n"])
def test_what_is_stored_and_damaged_is_named_and_nothing_is_copied(data, tmp_path, name, content):
    (data / "02_intermediate" / "pets" / name / VERSION / name).write_bytes(content)
    with pytest.raises(InputError, match="of the job 'pets' cannot be read"):
        copy_corrected("pets", data, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_no_split_leads_out_of_the_folder_and_a_lost_image_is_named(data, tmp_path):
    manifest = data / "02_intermediate" / "pets" / "manifest.csv" / VERSION / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",test,", ",../../out,"))
    copy_corrected("pets", data, tmp_path / "copy")
    assert not (tmp_path / "out").exists()
    (tmp_path / "photos" / "big dog" / "2.png").unlink()
    with pytest.raises(InputError, match=r"The image big dog/2\.png cannot be read: No such file"):
        copy_corrected("pets", data, tmp_path / "second")


def test_used_images_are_copied_as_they_are_under_their_corrected_labels(data, tmp_path):
    folder = tmp_path / "copies"
    assert copy_corrected("pets", data, folder) == 5
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}
    photos = tmp_path / "photos"
    assert found == {
        "train/big dog/0.png": (photos / "big dog/0.png").read_bytes(),
        "train/big dog/0_2.png": (photos / "cat/0.png").read_bytes(),
        "train/big dog/1.png": (photos / "big dog/1.png").read_bytes(),
        "train/big dog/2.png": (photos / "big dog/2.png").read_bytes(),
        "test/%2E%2E/NA%3A new/2.png": (photos / "cat/2.png").read_bytes(),
    }
    assert len(list(photos.rglob("*.png"))) == 6


def test_a_folder_that_holds_something_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="not an empty folder"):
        copy_corrected("pets", data, tmp_path / "photos")
    with pytest.raises(InputError, match="kedro run --pipelines ingestion --env owls"):
        copy_corrected("owls", data, tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "folder"),
    [("/etc", "%/etc"), ("dogs/größe, XL", "dogs/größe, XL"), (".hidden", "%2Ehidden"), ("a. ", "a.%20"), ("%", "%25")],
)
def test_no_class_name_leaves_the_folder(name, folder):
    assert class_folder(name) == Path(folder)
