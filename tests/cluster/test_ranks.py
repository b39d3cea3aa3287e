"""Trainings that two ranks share."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import TrainingParameters
from efficientnet_finetuning.training.checkpoint import Checkpoints
from efficientnet_finetuning.training.fit import fit

pytestmark = pytest.mark.slow

EQUALITY = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_ranks import IMAGES, LABELS, tiny_start
from efficientnet_finetuning.cluster.workers import RayWorkers
from efficientnet_finetuning.parameters import (
    AugmentationParameters, ClusterParameters, DeviceParameters, TrainingParameters
)
from efficientnet_finetuning.training.fit import fit

folder, start = Path(sys.argv[2]), tiny_start()
training = TrainingParameters(
    epochs=1, batch_size=8, optimizer="sgd", learning_rate=0.05, stage_decay=0.8, class_weight="balanced", keep="last",
    label_smoothing=0.1, augmentation=AugmentationParameters(translation=0.1, color_jitter=0.2, erasing=0.5),
)
assert training.drop_connect_rate and training.head_dropout
np.save(folder / "images.npy", IMAGES)
data = (np.load(folder / "images.npy", mmap_mode="r"), LABELS), (IMAGES[:7], LABELS[:7])
workers = RayWorkers(DeviceParameters(workers=2), ClusterParameters(), folder)
two = fit(start, "EfficientNetLite0", *data, training, 3, workers=workers)
workers.close()
one = fit(start, "EfficientNetLite0", *data, training, 3)
moved = max(np.abs(a - b).max() for a, b in zip(one.model.get_weights(), start.get_weights()))
apart = max(np.abs(a - b).max() for a, b in zip(one.model.get_weights(), two.model.get_weights()))
row, other = ({k: v for k, v in t.history[0].items() if k != "seconds"} for t in (one, two))
print(f"moved {moved:.1e}, apart {apart:.1e}")
assert moved > 1e-3 and apart < 1e-6
assert all(abs(row[name] - other[name]) < 1e-5 for name in row), (row, other)
"""


def test_two_ranks_train_what_one_trains(tmp_path):
    # And where a proxy leads out of the network, the ranks are not sought behind it.
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = os.environ | proxies | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", EQUALITY, str(Path(__file__).parent), tmp_path]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]


IMAGES = np.random.default_rng(0).integers(0, 256, (21, 32, 32, 3), np.uint8)
LABELS = np.eye(2, dtype=np.uint8)[np.arange(21) % 2]
TRAINING = TrainingParameters(epochs=4, batch_size=4, learning_rate=1e-3, freeze_batch_norm=False, keep="last")


def tiny_start() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128)(inputs)
    x = keras.layers.Conv2D(8, 3, 4, use_bias=False, name="stem_conv")(x)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    branch = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="block1a_conv")(x)
    branch = keras.layers.Dropout(0.1, noise_shape=(None, 1, 1, 1), name="block1a_drop")(branch)
    x = keras.layers.Add(name="block1a_add")([x, branch])
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2, name="head_dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))


def train(workers, checkpoints=None, training=TRAINING):
    splits = (IMAGES, LABELS), (IMAGES[:7], LABELS[:7])
    return fit(tiny_start(), "EfficientNetLite0", *splits, training, 7, checkpoints, workers)


def kill_when(happened, processes) -> threading.Thread:
    def wait() -> None:
        until = time.monotonic() + 240
        while not happened() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(processes()[1], signal.SIGKILL)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_killed_rank_costs_what_came_after_the_last_checkpoint(workers, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    undisturbed = train(workers)
    assert "Each epoch skips 1 image," in caplog.text
    assert [record.metrics["epoch"] for record in caplog.records if hasattr(record, "metrics")] == list(range(1, 5))
    caplog.clear()
    folder = tmp_path / "run"
    killer = kill_when(
        lambda: any(folder.glob("000003*")),
        lambda: [int(process) for process in re.findall(r"\((\d+)\)", caplog.text)],
    )
    within_epochs = TRAINING.model_copy(update={"checkpoint_minutes": 1e-9})
    disturbed = train(workers, Checkpoints(folder), within_epochs)
    killer.join()
    assert "A rank died: " in caplog.text
    assert "All ranks restart from the last checkpoint (restart 1 of 1)" in caplog.text
    assert "Training resumes from its checkpoint" in caplog.text
    assert [row["epoch"] for row in disturbed.history] == list(range(1, 5))
    for ours, theirs in zip(disturbed.model.get_weights(), undisturbed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Quiet:
    pending = False


def second_dies_once(flag: Path, *, signals, ranks) -> int:  # noqa: ARG001
    if flag.exists():
        return ranks.count
    if ranks.rank == 0:
        raise ConnectionError("the connection was closed by a peer")
    time.sleep(1)
    flag.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_a_rank_that_fails_since_another_one_died_is_started_again_too(workers, tmp_path, caplog):
    assert workers.train(second_dies_once, tmp_path / "flag", signals=Quiet()) == 2
    assert "A rank died: " in caplog.text


def always_fails(*, signals, ranks) -> None:  # noqa: ARG001
    raise InputError("the learning rate is too high")


def test_what_is_wrong_with_a_training_is_said_in_its_own_words(workers):
    with pytest.raises(InputError, match=r"^the learning rate is too high$"):
        workers.train(always_fails, signals=Quiet())


def test_ranks_keep_to_a_time_budget_by_one_clock(workers):
    trained = train(workers, training=TRAINING.model_copy(update={"time_budget_minutes": 0.2}))
    assert 6 < sum(row["seconds"] for row in trained.history) < 30
    rates = [row["learning_rate"] for row in trained.history]
    assert rates[-1] < rates[len(rates) // 2] < 1e-3


INTERRUPTED = """
import logging, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
logging.basicConfig(level=logging.INFO)
from test_ranks import TRAINING, train
from efficientnet_finetuning.cluster.workers import RayWorkers
from efficientnet_finetuning.parameters import ClusterParameters, DeviceParameters
from efficientnet_finetuning.training.checkpoint import Checkpoints

folder = Path(sys.argv[2])
workers = RayWorkers(DeviceParameters(workers=2), ClusterParameters(), folder)
try:
    train(workers, Checkpoints(folder / "run"), TRAINING.model_copy(update={"epochs": 100_000}))
finally:
    workers.close()
"""


@pytest.mark.parametrize(("number", "leaves"), [(signal.SIGINT, "a checkpoint"), (signal.SIGKILL, "nothing")])
def test_an_interrupted_training_leaves_no_process_behind(tmp_path, short_folder, number, leaves):
    environment = os.environ | {"TMPDIR": str(short_folder)}
    command = [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parent), tmp_path]
    with (tmp_path / "told").open("w") as told:  # a pipe would be held open by what Ray leaves for a while
        running = subprocess.Popen(command, env=environment, stderr=told)
    try:
        until = time.monotonic() + 240
        while not any(tmp_path.glob("run/0*")) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(number)
        running.wait(timeout=120)
    finally:
        running.kill()
    assert running.returncode != 0
    told = (tmp_path / "told").read_text()
    assert ("Training stops. A checkpoint is written" in told) == (leaves == "a checkpoint"), told
    until = time.monotonic() + 20
    while (left := processes_of(short_folder)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left
    assert Checkpoints(tmp_path / "run").newest() is not None


def processes_of(folder: Path) -> list[str]:
    """The processes whose temporary folder it is, whatever they call themselves."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={folder}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().strip("\0"))
        except OSError:  # it has just ended, or is somebody else's
            continue
    # Two of Ray's helpers wait a minute for the rest of a killed cluster, and then end.
    return [name for name in found if name not in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")]
