import json

import pytest

from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.sources import open_source, reopen
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DatasetParameters


@pytest.fixture
def write_csv(tmp_path, write_images):
    """Writes images and a CSV of the given text beside them, and returns the CSV."""
    write_images(tmp_path, "1.png", "sub/2.png", "3.png", "4.png")

    def write(text: str, encoding: str = "utf-8"):
        file = tmp_path / "labels.csv"
        file.write_text(text, encoding=encoding)
        return file

    return write


def listing(source, split: str) -> list[tuple[str, str]]:
    return [(image.id, source.class_names[image.label]) for image in source.images(split)]


def fault(file, **dataset) -> str:
    with pytest.raises(InputError) as caught:
        open_source(DatasetParameters(path=file, **dataset))
    return str(caught.value)


def test_paths_are_relative_to_the_csv(write_csv):
    source = open_source(DatasetParameters(path=write_csv("path,label\n1.png,NA\nsub/2.png, Ähre \n3.png,NA\n")))
    assert source.class_names == ("NA", "Ähre")
    assert listing(source, "train") == [("1.png", "NA"), ("sub/2.png", "Ähre"), ("3.png", "NA")]
    assert reopen(json.loads(json.dumps(source.describe()))).splits == {"train": 3}


def test_a_split_column_fills_the_roles_and_excel_may_have_written_it(write_csv):
    text = "path,label,split\n1.png,a,train\nsub/2.png,b,train\n3.png,a,val\n4.png,b,test\n"
    source = open_source(DatasetParameters(path=write_csv(text, "utf-8-sig")))
    assert source.splits == {"train": 2, "test": 1, "validation": 1}
    assert listing(source, "validation") == [("3.png", "a")]


def test_a_split_without_a_role_is_mentioned(write_csv):
    source = open_source(
        DatasetParameters(path=write_csv("path,label,split\n1.png,a,train\n3.png,b,train\n4.png,b,old\n"))
    )
    assert source.splits == {"train": 2}
    assert source.notes == ["the run ignores 1 row of splits without a role"]


def test_a_group_column_without_names_names_none(write_csv):
    source = open_source(DatasetParameters(path=write_csv("path,label,group\n1.png,a,\n3.png,b, \n")))
    assert source.groups == {}


def test_a_file_that_is_not_there_is_excluded_as_unreadable(write_csv):
    dataset = DatasetParameters(path=write_csv("path,label\n1.png,a\ngone.png,b\n3.png,b\n"))
    findings = inspect_images(open_source(dataset), dataset, 100.0, seed=0)
    assert list(findings["excluded"]) == ["", "unreadable: No such file or directory", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path;label\n1.png;a\n", "has no column path and no column label. It has: path;label."),
        ("path,class\n1.png,a\n", "has no column label. It has: path, class."),
        ("path,label\n", "has no rows"),
        ("path,label\n1.png,a\n3.png,\n", "1 row without a path, a label or a split: line 3 (3.png)"),
        ("path,label\n1.png,a\n1.png,b\n", "1 row with a repeated path: line 3 (1.png)"),
        ("path,label\n1.png,a\n../x.png,b\n", "1 row whose path leaves the CSV's folder"),
        ("path,label\n1.png,a\n/etc/hostname,b\n", "line 3 (/etc/hostname)"),
        ("path,label,split\n1.png,a,trian\n3.png,b,test\n", "has no split 'train'. Did you mean 'trian'?"),
        ("path,label\n1.png,a,b\n3.png,b,c\n", "has rows with more fields than its header path, label"),
    ],
)
def test_a_wrong_csv_is_refused_with_what_is_wrong(write_csv, text, words):
    assert words in fault(write_csv(text))


def test_another_encoding_is_refused(write_csv):
    assert "cannot be read as a CSV in UTF-8" in fault(write_csv("path,label\n1.png,ä\n", "latin-1"))
