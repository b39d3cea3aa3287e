"""A training that is cut off and goes on ends as one that never was."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import TrainingParameters
from efficientnet_finetuning.training.checkpoint import Checkpoints
from efficientnet_finetuning.training.fit import fit

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
LABELS = np.eye(2, dtype=np.uint8)[np.arange(20) % 2]
VALIDATION = (IMAGES[:6], LABELS[:6])


class Failing:
    """Images that cannot be read any more after so many batches."""

    def __init__(self, batches: int) -> None:
        self.left, self.shape, self.dtype = batches, IMAGES.shape, IMAGES.dtype

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, rows):
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("the disk went away")
        return IMAGES[rows]


def parameters(**changes) -> TrainingParameters:
    return TrainingParameters(
        **{"epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "freeze_batch_norm": False} | changes
    )


def train(start, checkpoints=None, images=IMAGES, **changes):
    return fit(start, "EfficientNetLite0", (images, LABELS), VALIDATION, parameters(**changes), 7, checkpoints)[:2]


def without_seconds(rows) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(start):
    return train(start)


@pytest.mark.parametrize("batches", [9, 13])
@pytest.mark.parametrize("minutes", [1e-9, 60.0], ids=["within epochs", "after epochs"])
def test_a_training_that_was_cut_off_ends_with_the_same_weights_and_history(
    start, undisturbed, tmp_path, batches, minutes
):
    with pytest.raises(Exception, match="the disk went away"):
        train(start, Checkpoints(tmp_path), Failing(batches), checkpoint_minutes=minutes)
    model, rows = train(start, Checkpoints(tmp_path), checkpoint_minutes=minutes)
    expected, expected_rows = undisturbed
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row, expected_row in zip(without_seconds(rows), without_seconds(expected_rows), strict=True):
        assert row == pytest.approx(expected_row, rel=1e-5)
    for ours, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class CutOff(Checkpoints):
    """Checkpoints after the eighth of which the process dies, in the middle of the second epoch."""

    writes = 0

    def write(self, *args) -> None:
        super().write(*args)
        self.writes += 1
        if self.writes == 8:
            raise ConnectionError("the power went away")


def test_a_training_on_cached_activations_goes_on_in_the_middle_of_an_epoch(start, tmp_path):
    options = {"unfreeze_from": "block7a", "cached_views": 2, "freeze_batch_norm": True, "checkpoint_minutes": 1e-9}
    expected, expected_rows = train(start, **options)
    with pytest.raises(ConnectionError):
        train(start, CutOff(tmp_path), **options)
    model, rows = train(start, Checkpoints(tmp_path), **options)
    for row, expected_row in zip(without_seconds(rows), without_seconds(expected_rows), strict=True):
        assert row == pytest.approx(expected_row, rel=1e-5)
    for ours, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_training_whose_epochs_are_all_done_is_not_repeated(start, tmp_path):
    expected, rows = train(start, Checkpoints(tmp_path))
    model, again = train(start, Checkpoints(tmp_path), Failing(0))
    assert without_seconds(again) == without_seconds(rows)
    for ours, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(start, undisturbed, tmp_path, caplog):
    train(start, Checkpoints(tmp_path), epochs=3)
    kept = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert kept == ["000002-00000000", "000003-00000000"], "the last two"
    file = tmp_path / kept[-1] / "model.npz"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    model, rows = train(start, Checkpoints(tmp_path))
    assert "is skipped" in caplog.text
    assert str(file) in caplog.text
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for ours, theirs in zip(model.get_weights(), undisturbed[0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_training_that_diverges_says_where_and_keeps_its_last_sound_checkpoint(start, tmp_path):
    with pytest.raises(InputError, match=r"epoch \d+, step \d+, at a learning rate of .*checkpoint is in ") as caught:
        train(start, Checkpoints(tmp_path / "run"), learning_rate=1e9, epochs=30, checkpoint_minutes=1e-9)
    assert str(tmp_path) in str(caught.value)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # the traceback still holds the folder
    arrays, _ = Checkpoints(tmp_path / "copy").newest()
    assert all(np.isfinite(values).all() for name in arrays for values in arrays[name])


def test_a_folder_that_another_process_holds_is_refused_with_its_holder(tmp_path):
    hold = (
        "import sys, time; from pathlib import Path;"
        "from efficientnet_finetuning.training.checkpoint import Checkpoints;"
        "held = Checkpoints(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid} on "):
            Checkpoints(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    Checkpoints(tmp_path)  # whoever is killed holds nothing


def test_a_signal_waits_for_the_batch_to_end_and_a_checkpoint_to_be_written(start, undisturbed, tmp_path):
    class Interrupting(Failing):
        def __getitem__(self, rows):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
            return IMAGES[rows]

    # A shell's background process, which the tests may be, ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        train(start, Checkpoints(tmp_path), Interrupting(9))
    signal.signal(signal.SIGINT, before)
    newest = max(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert newest.startswith("000001-")
    assert newest != "000001-00000000", "the signal came in the second epoch"
    model, rows = train(start, Checkpoints(tmp_path))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for ours, theirs in zip(model.get_weights(), undisturbed[0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_training_that_goes_on_keeps_to_its_time_budget(start, tmp_path):
    with pytest.raises(ConnectionError):
        train(start, CutOff(tmp_path), time_budget_minutes=0.1, checkpoint_minutes=1e-9)
    spent = Checkpoints(tmp_path).newest()[1]["clock"]["spent"]
    assert spent > 0
    _, rows = train(start, Checkpoints(tmp_path), time_budget_minutes=0.1)
    assert sum(row["seconds"] for row in rows) < 8, "the first process' seconds count"
    assert rows[-1]["epochs"] == rows[-1]["epoch"]


def test_a_time_budget_that_has_ended_is_not_begun_again(start, tmp_path):
    _, rows = train(start, Checkpoints(tmp_path), time_budget_minutes=0.05)
    _, again = train(start, Checkpoints(tmp_path), Failing(0), time_budget_minutes=0.05)
    assert without_seconds(again) == without_seconds(rows)
