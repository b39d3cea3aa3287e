"""What a run tells MLflow: written to a local journal first, sent in the background, replayed where it did not arrive.

A journal is a file of one JSON event a line. Whoever writes it holds a lock on it, so a journal that can be locked was
left by a process that has died, or by one that could not send all of it. Its events can be sent again without harm:
runs are found by a tag of ours, models by their run, and metrics carry the time at which they were measured.

``python -m efficientnet_finetuning.running.tracking`` sends what is left; so does the next ``kedro run``.
"""

import contextlib
import fcntl
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from efficientnet_finetuning.running.registry import register

logger = logging.getLogger(__name__)

JOURNALS = Path("data/08_reporting/mlflow/journal")
_KEY = "efficientnet_finetuning.key"
# How long the end of a run waits for a server, and for a local database, in which each event makes progress.
_PATIENCE_SERVER, _PATIENCE_LOCAL = 4.0, 60.0
# What MLflow's errors say when the fault is the event's. All others, a proxy's error pages too, are the server's.
_HOPELESS = {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}
# And what a server says to a model if it keeps runs but no models, or none of ours. The run has arrived there before,
# and must not wait for it.
_HOPELESS_MODEL = _HOPELESS | {"ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", "PERMISSION_DENIED"}

Event = dict[str, Any]


class Journal:
    """The events of one run, and the thread that sends them.

    Args:
        path: of the file, ``<save version>.jsonl`` in a folder of journals.
        store: where MLflow keeps runs: ``uri``, ``artifact_location`` (or ``None``), ``experiment``.
    """

    def __init__(self, path: Path, store: dict[str, str | None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.touch(mode=0o600)  # the address of a server may hold a password
        self._file = new.open("w", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        new.rename(path)  # unlocked, it would be taken for one that was left behind
        self._is_remote = not str(store["uri"]).startswith(("sqlite:", "file:"))
        if self._is_remote:
            _import_ipython()
        self._sender = _Sender(path)
        self.write(store)
        self._sender.start()

    def write(self, event: Mapping[str, Any]) -> None:
        """Add an event; it has left this process when this returns, but it may not have been sent."""
        self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._file.flush()
        self._sender.wake.set()

    def close(self) -> None:
        """Send what is left, but wait for a server no longer than is fair."""
        self._sender.finishing = True
        self._sender.wake.set()
        patience = _PATIENCE_SERVER if self._is_remote else _PATIENCE_LOCAL
        sent, since = -1, time.monotonic()
        while self._sender.is_alive() and time.monotonic() - since < patience:
            self._sender.join(0.1)
            if not self._is_remote and self._sender.sent != sent:
                sent, since = self._sender.sent, time.monotonic()
        if self._sender.is_alive():
            logger.warning("MLflow is slow to answer. %s", _KEPT)
        self._file.close()


def _import_ipython() -> None:
    """Import IPython before the thread starts.

    MLflow imports it when it first calls a server. In the thread, that happens while the run draws a figure, and
    matplotlib fails if it finds IPython half imported.
    """
    with contextlib.suppress(ImportError):
        import IPython  # noqa: F401


_KEPT = "Nothing is lost: the next `kedro run` or `make mlflow-replay` sends what is missing."


class _Sender(threading.Thread):
    """Sends the journals that others left, then follows its own until that is closed."""

    def __init__(self, own: Path) -> None:
        super().__init__(daemon=True, name="mlflow")
        self._own = own
        self.wake, self.finishing, self.sent = threading.Event(), False, 0

    def run(self) -> None:
        _, outages = replay(self._own.parent)
        for uri, error in outages.items():
            logger.warning("MLflow at %s still misses records of earlier runs (%s)", uri, error)
        try:
            delivery = _Delivery(self._own)
            while True:
                finishing = self.finishing
                for _ in delivery.send():
                    self.sent += 1
                if finishing:
                    return delivery.discard()
                self.wake.wait()
                self.wake.clear()
        except Exception as error:  # a tracking server fails in every way there is
            logger.warning("MLflow cannot be reached (%s: %s); the run goes on. %s", type(error).__name__, error, _KEPT)


def replay(folder: Path) -> tuple[int, dict[str, Exception]]:
    """Send what the journals of ended processes hold, and close the runs that they left open.

    Returns:
        How many events were sent, and for each store that could not be reached, why. One that is away holds up its
        own journals only, which stay.
    """
    count, outages = 0, dict[str, Exception]()
    for path in sorted(folder.glob("*.jsonl")):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_nlink:
                    count += _deliver(path, outages)
        except (BlockingIOError, FileNotFoundError):  # its writer lives, or another process has just sent it
            continue
    return count, outages


def _deliver(path: Path, outages: dict[str, Exception]) -> int:
    delivery = _Delivery(path)
    count = 0
    if delivery.uri not in outages:
        try:
            for _ in delivery.send():
                count += 1
            delivery.end_what_was_left_open()
            delivery.discard()
        except Exception as error:
            outages[delivery.uri] = error
    return count


class _Delivery:
    """Sends the events of a journal in order, and remembers beside it how many are sent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._progress = path.with_suffix(".sent")
        self._stream = path.open(encoding="utf-8")
        header = self._stream.readline()
        self._store: Event = json.loads(header) if header.endswith("\n") else {"uri": ""}
        self.uri = str(self._store["uri"])
        self._runs: dict[str, str] = {}
        self._open: set[str] = set()
        self._known_steps: dict[str, set[int]] = {}
        self._number = 0
        self._client: Any = None

    def send(self) -> Iterator[Event]:
        """Send the events that are there and were not sent, and yield each."""
        done = int(self._progress.read_text() or 0) if self._progress.is_file() else 0
        while True:
            position = self._stream.tell()
            line = self._stream.readline()
            if not line.endswith("\n"):  # nothing, or what a killed process had begun to write
                self._stream.seek(position)
                return
            event = json.loads(line)
            self._number += 1
            self._connect()
            if self._number > done:
                self._apply(event)
                self._progress.write_text(str(self._number))
                yield event
            self._note(event)

    def end_what_was_left_open(self) -> None:
        """Mark the runs of a process that died as killed."""
        for key in self._open:
            if run_id := self._find(key):
                self._client.set_terminated(run_id, "KILLED")

    def discard(self) -> None:
        """Remove a journal that is wholly sent."""
        self._path.unlink(missing_ok=True)
        self._progress.unlink(missing_ok=True)

    def _note(self, event: Event) -> None:
        if event["op"] == "run":
            self._open.add(event["key"])
        elif event["op"] == "end":
            self._open.discard(event["key"])

    def _connect(self) -> None:
        if self._client is not None:
            return
        # A server that does not answer must not hold up the end of a run; by itself MLflow tries for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # What a run says is for the run's user: no progress of copies, no steps on the way.
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient

        # Now that MLflow has set its loggers up: this one writes a traceback of what is raised and told in one line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        store = self._store
        self._client = MlflowClient(self.uri)
        found = self._client.get_experiment_by_name(store["experiment"])
        self._experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(store["experiment"], store["artifact_location"])
        )

    def _apply(self, event: Event) -> None:
        from mlflow.exceptions import MlflowException

        try:
            getattr(self, f"_send_{event['op']}")(event)
        except MlflowException as error:
            if error.error_code not in (_HOPELESS_MODEL if event["op"] == "model" else _HOPELESS):
                raise
            logger.warning("MLflow refuses a record of this run: %s", error)

    def _send_run(self, event: Event) -> None:
        from mlflow.entities import Param

        key, tags = event["key"], dict(event["tags"])
        if event["parent"]:
            tags["mlflow.parentRunId"] = self._run_id(event["parent"])
        if run_id := self._find(key):  # a training that goes on
            self._known_steps[run_id] = {metric.step for metric in self._client.get_metric_history(run_id, "loss")}
            self._client.update_run(run_id, status="RUNNING")
            for name, value in tags.items():
                self._client.set_tag(run_id, name, value)
            return
        run = self._client.create_run(
            self._experiment, start_time=event["time"], run_name=event["name"], tags=tags | {_KEY: key}
        )
        self._runs[key] = run.info.run_id
        params = [Param(name, str(value)) for name, value in event["params"].items()]
        for first in range(0, len(params), 100):  # the most that MLflow takes at once
            self._client.log_batch(run.info.run_id, params=params[first : first + 100])

    def _send_metrics(self, event: Event) -> None:
        from mlflow.entities import Metric

        run_id = self._run_id(event["key"])
        if event["step"] in self._known_steps.get(run_id, ()):
            return  # the epoch during which the earlier process was killed
        metrics = [Metric(name, value, event["time"], event["step"]) for name, value in event["metrics"].items()]
        self._client.log_batch(run_id, metrics=metrics)

    def _send_dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        run_id = self._run_id(event["key"])
        dataset = Dataset(
            name=event["name"],
            digest=event["digest"][:36],  # the most that MLflow keeps
            source_type="local",
            source=json.dumps({"uri": event["source"]}),
            profile=json.dumps(event["counts"]),
        )
        tag = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(run_id, [DatasetInput(dataset, [tag])])
        self._client.set_tag(run_id, "manifest_sha256", event["digest"])

    def _send_artifact(self, event: Event) -> None:
        if Path(event["path"]).is_file():  # it may have been pruned since
            self._client.log_artifact(self._run_id(event["key"]), event["path"])

    def _send_model(self, event: Event) -> None:
        register(self._client, self._experiment, self._run_id(event["key"]), event)

    def _send_table(self, event: Event) -> None:
        self._client.log_table(self._run_id(event["key"]), event["data"], event["name"])

    def _send_end(self, event: Event) -> None:
        self._client.set_terminated(self._run_id(event["key"]), event["status"], event["time"])

    def _run_id(self, key: str) -> str:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        if run_id := self._find(key):
            return run_id
        raise MlflowException(f"the run {key!r} was deleted", RESOURCE_DOES_NOT_EXIST)

    def _find(self, key: str) -> str | None:
        if key not in self._runs:
            found = self._client.search_runs([self._experiment], f"tags.`{_KEY}` = '{key}'", max_results=1)
            if not found:
                return None
            self._runs[key] = found[0].info.run_id
        return self._runs[key]


def main() -> None:
    """Send what earlier runs could not."""
    count, outages = replay(JOURNALS)
    print(f"{count} records were sent to MLflow.")  # noqa: T201
    if outages:
        faults = "\n".join(f"  {uri}: {error}" for uri, error in outages.items())
        sys.exit(f"Error: MLflow cannot be reached; the journals stay in {JOURNALS}:\n{faults}")


if __name__ == "__main__":
    main()
