"""What the run before has stored: an older version that says something else, and is as it was written."""

import pandas as pd
import pytest
from kedro.io import Version

from efficientnet_finetuning.io.committed import CSVDataset


@pytest.fixture
def dataset(tmp_path):
    """A table's newest version, after versions of the given contents."""

    def dataset(*contents: str, load: str | None = None) -> CSVDataset:
        file = str(tmp_path / "table.csv")
        for day, content in enumerate(contents):
            version = Version(None, f"2026-01-0{day + 1}T00.00.00.000Z")
            written = CSVDataset(filepath=file, version=version, save_args={"index": False})
            written.save(pd.DataFrame({"content": [content]}))
        return CSVDataset(filepath=file, version=Version(load, None))

    return dataset


def content(dataset: CSVDataset | None) -> str:
    assert dataset is not None
    return str(dataset.load()["content"][0])


def test_the_newest_older_version_that_says_something_else_is_the_one_before(dataset):
    newest = dataset("a", "b", "c", "c")
    assert content(newest.before()) == "b"
    assert content(newest) == "c", "what is loaded stays the newest"
    assert content(dataset(load="2026-01-02T00.00.00.000Z").before()) == "a"


def test_a_first_version_has_none_before_it(dataset):
    assert dataset("a").before() is None


def test_a_damaged_version_is_passed_over(dataset, tmp_path):
    newest = dataset("a", "b", "c")
    (tmp_path / "table.csv" / "2026-01-02T00.00.00.000Z" / "table.csv").write_text("content\nx\n")
    assert content(newest.before()) == "a"
