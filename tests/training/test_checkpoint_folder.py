"""The folder of a long step: what it keeps, what it reads back, and which signals wait."""

import pickle
import signal
import threading

import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.storage import written_as_a_whole
from efficientnet_finetuning.training.checkpoint import Checkpoints, Deferred

WEIGHTS = [np.array([1.5, -2.0], np.float32), np.arange(6).reshape(2, 3)]
MOMENTS = [np.array(3, np.int64)]


def test_arrays_and_state_come_back_as_they_were(tmp_path):
    Checkpoints(tmp_path).write(2, 13, {"model": WEIGHTS, "optimizer": MOMENTS}, {"rows": [{"loss": 0.5}], "best": 1})
    arrays, state = Checkpoints(tmp_path).newest()
    assert set(arrays) == {"model", "optimizer"}
    assert state == {"rows": [{"loss": 0.5}], "best": 1}
    for ours, theirs in zip([*arrays["model"], *arrays["optimizer"]], [*WEIGHTS, *MOMENTS], strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_the_last_two_checkpoints_are_kept_and_nothing_else_is_touched(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.decide("batch", lambda: {"size": 8})
    (tmp_path / "notes").mkdir()
    for epoch, step in [(0, 5), (0, 40), (1, 0), (0, 100), (10, 3)]:
        checkpoints.write(epoch, step, {"model": MOMENTS}, {"epoch": epoch})
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["000001-00000000", "000010-00000003", "batch", "notes"]
    assert checkpoints.newest()[1] == {"epoch": 10}


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "new" / "folder").newest() is None


def without_commit_file(folder):
    (folder / "commit.json").unlink()


def without_state(folder):
    with written_as_a_whole(folder, {"decided": 1}):
        pass


def changed(folder):
    np.savez(folder / "model.npz", *WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (without_commit_file, "its commit file is missing or damaged"),
        (without_state, "its commit file is missing or damaged"),
        (changed, "model.npz"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_named_and_the_one_before_is_read(tmp_path, caplog, damage, why):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, 0, {"model": MOMENTS}, {"epoch": 1})
    checkpoints.write(2, 0, {"model": MOMENTS}, {"epoch": 2})
    damage(tmp_path / "000002-00000000")
    assert checkpoints.newest()[1] == {"epoch": 1}
    assert f"{tmp_path / '000002-00000000'} is skipped: " in caplog.text
    assert why in caplog.text


def test_a_checkpoint_is_never_unpickled(tmp_path):
    with written_as_a_whole(tmp_path / "000001-00000000", {"state": {}}) as folder:
        np.savez(folder / "model.npz", np.array([{"a": 1}]))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Checkpoints(tmp_path).newest()


def test_a_decision_is_made_once_and_survives_the_process(tmp_path):
    made = []

    def decision():
        made.append(len(made))
        return {"rate": 10.0 + len(made)}

    assert Checkpoints(tmp_path).decide("rate", decision) == {"rate": 11.0}
    assert Checkpoints(tmp_path).decide("rate", decision) == {"rate": 11.0}
    assert Checkpoints(tmp_path).decide("another", decision) == {"rate": 12.0}
    (tmp_path / "rate" / "commit.json").write_text("{}")
    assert Checkpoints(tmp_path).decide("rate", decision) == {"rate": 13.0}, "damaged"


def test_a_removed_folder_is_gone_and_free(tmp_path):
    held = Checkpoints(tmp_path / "step")
    held.write(1, 0, {"model": MOMENTS}, {})
    held.decide("rate", dict)
    held.remove()
    assert not (tmp_path / "step").exists()
    assert Checkpoints(tmp_path / "step").newest() is None


def test_whoever_holds_the_folder_is_named_until_it_lets_go(tmp_path):
    held = Checkpoints(tmp_path)
    with pytest.raises(InputError, match=r"already running: process \d+ on .*, since 20\d\d-.* uses .*Wait for it"):
        Checkpoints(tmp_path)
    del held
    written = [Checkpoints(tmp_path).folder.joinpath("holder").read_text() for _ in range(2)]
    assert [text.count("process") for text in written] == [1, 1], "only the last holder is in the file"


def test_another_process_gets_the_path_but_not_the_lock(tmp_path):
    held = Checkpoints(tmp_path)
    held.write(1, 2, {"model": MOMENTS}, {"epoch": 1})
    copy = pickle.loads(pickle.dumps(held))
    assert copy.folder == tmp_path
    assert copy.newest()[1] == {"epoch": 1}
    with pytest.raises(InputError):
        Checkpoints(tmp_path)


@pytest.fixture
def heard():
    """Signals that reached the handlers that were there before the block."""
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: heard.append(number)) for number in numbers]
    yield heard
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_it_is_let_through(heard, number):
    with Deferred() as signals:
        assert not signals.pending
        signal.raise_signal(number)
        assert signals.pending
        assert heard == []
        signals.let_through()
        assert heard == [number]
        signal.raise_signal(number)
        assert heard == [number] * 2, "from here on nothing waits"


def test_nothing_is_sent_where_no_signal_came(heard):
    with Deferred() as signals:
        signals.let_through()
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_a_second_signal_acts_at_once(heard):
    with Deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGTERM]


@pytest.mark.usefixtures("heard")  # puts the handlers back
def test_a_signal_that_was_ignored_before_is_still_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Deferred() as signals:
        signal.raise_signal(signal.SIGINT)
        assert not signals.pending
        signal.raise_signal(signal.SIGTERM)
        assert signals.pending
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_another_thread_leaves_the_handlers_alone():
    failures = []

    def work():
        try:
            with Deferred() as signals:
                assert not signals.pending
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
