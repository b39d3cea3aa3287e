import csv

import pandas as pd
import pytest
from kedro.io import Version

from efficientnet_finetuning.io.answers import AnswersDataset

VERSION = "2026-01-01T00.00.00.000Z"
NAMES = ["=cmd|' /C calc'!A0", "+1", "-1.jpg", "@SUM(A1)", "\tx", 'quo"te', "two\nlines", "Äpfel, birnen", "plain"]


def dataset(folder, save=None) -> AnswersDataset:
    return AnswersDataset(filepath=str(folder / "answers.csv"), version=Version(None, save))


@pytest.fixture
def parts() -> list[pd.DataFrame]:
    table = pd.DataFrame({"id": NAMES, "class_1": NAMES[::-1], "probability_1": 0.5, "answered": True, "reason": ""})
    return [table[:4], table[4:]]


def test_programs_read_what_was_written(tmp_path, parts):
    dataset(tmp_path, VERSION).save(iter(parts))
    pd.testing.assert_frame_equal(dataset(tmp_path).load(), pd.concat(parts))
    assert dataset(tmp_path).find_damage() == ""


def test_a_spreadsheet_executes_nothing(tmp_path, parts):
    dataset(tmp_path, VERSION).save(iter(parts))
    with (tmp_path / "answers.csv" / VERSION / "answers.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == list(parts[0].columns)
    assert [row[0].removeprefix("'") for row in rows] == NAMES
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row)


def test_parts_are_written_as_they_come(tmp_path, parts):
    """Memory holds one part: the second is made after the first was written."""
    written = tmp_path / "answers.csv" / ".staging"

    def one_after_the_other():
        yield parts[0]
        (file,) = written.glob("*/answers.csv")
        assert file.exists()
        yield parts[1]

    dataset(tmp_path, VERSION).save(one_after_the_other())
    assert len(dataset(tmp_path).load()) == len(NAMES)
