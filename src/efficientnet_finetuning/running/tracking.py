"""Records for MLflow. They are written to a local journal first and sent in the background.

A journal is a file with one JSON event per line. The process that writes it holds a lock on it. A journal without a
lock belongs to a process that died or that could not send everything. Events can be sent twice without harm: runs are
found by a tag, models by their run, and metrics carry their time.

``python -m efficientnet_finetuning.running.tracking`` sends all that is left; so does the next ``kedro run``.
"""

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
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
# Seconds that the end of a run waits for a server, and for the next event in a local database.
_PATIENCE_SERVER, _PATIENCE_LOCAL = 4.0, 60.0
# Error codes that blame the event. All other errors, such as a proxy's error page, are the server's fault.
_HOPELESS = {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}
# Error codes of a server that stores runs but no models.
_HOPELESS_MODEL = _HOPELESS | {"ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", "PERMISSION_DENIED"}

# Where MLflow's tables hold the paths of artifacts.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)

Event = dict[str, Any]


class Journal:
    """The events of one run, and the thread that sends them.

    Args:
        path: the file, ``<save version>.jsonl`` in the folder of journals.
        store: ``uri`` of MLflow's store (``None``: the project's database) and ``experiment``.
    """

    def __init__(self, path: Path, store: dict[str, str | None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.touch(mode=0o600)  # the address of a server may hold a password
        self._file = new.open("w", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        new.rename(path)  # only now, since an unlocked journal counts as left behind
        self._is_remote = not (store["uri"] or "sqlite:").startswith(("sqlite:", "file:"))
        _import_ahead(self._is_remote)
        self._sender = _Sender(path)
        self.write(store)
        self._sender.start()

    def write(self, event: Mapping[str, Any]) -> None:
        """Append an event. It is on its way to the disk when this returns, but may not have been sent."""
        self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._file.flush()
        self._sender.wake.set()

    def close(self) -> None:
        """Send what is left, but do not wait long for a slow server."""
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


def _import_ahead(is_remote: bool) -> None:
    """Import what cannot be imported while the thread imports MLflow.

    TFDS replaces Python's ``import`` in all threads while it is imported. MLflow imports IPython when it first calls a
    server, and matplotlib fails if IPython is half imported when the run draws a figure.
    """
    with contextlib.suppress(ImportError):
        import tensorflow_datasets  # noqa: F401  a third of a second, without TensorFlow

        if is_remote:
            import IPython  # noqa: F401


_KEPT = "Nothing is lost: the next `kedro run` or `make mlflow-replay` sends what is missing."


class _Sender(threading.Thread):
    """Sends the journals of earlier runs, then its own until that is closed."""

    def __init__(self, own: Path) -> None:
        super().__init__(daemon=True, name="mlflow")
        self._own = own
        self.wake, self.finishing, self.sent = threading.Event(), False, 0

    def run(self) -> None:
        _, outages = replay(self._own.parent)
        for uri, error in outages.items():
            logger.warning("Records of earlier runs could not be sent to MLflow at %s (%s)", uri, error)
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
        except Exception as error:  # a server can fail in any way
            logger.warning(
                "MLflow cannot be reached (%s: %s). The run continues. %s", type(error).__name__, error, _KEPT
            )


def replay(folder: Path) -> tuple[int, dict[str, Exception]]:
    """Send the journals of processes that have ended, and close the runs that they left open.

    Returns:
        The number of events sent, and an error for each store that could not be reached. Its journals stay.
    """
    count, outages = 0, dict[str, Exception]()
    try:
        _mend_locations(folder.resolve().parent)
    except sqlite3.Error as error:
        outages["the project's database"] = error
    for path in sorted(folder.glob("*.jsonl")):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_nlink:
                    count += _deliver(path, outages)
        except (BlockingIOError, FileNotFoundError):  # its writer lives, or another process has just sent it
            continue
        except OSError as error:
            outages[str(path)] = error
    return count, outages


def _deliver(path: Path, outages: dict[str, Exception]) -> int:
    count, delivery = 0, None
    try:
        delivery = _Delivery(path)
        if delivery.uri not in outages:
            for _ in delivery.send():
                count += 1
            delivery.end_what_was_left_open()
            delivery.discard()
    except Exception as error:
        if not _is_the_journals_fault(error, delivery):
            outages[delivery.uri if delivery else str(path)] = error
            return count
        logger.warning("%s is damaged and was renamed to *.damaged. %s: %s", path, type(error).__name__, error)
        path.rename(path.with_suffix(".damaged"))
        path.with_suffix(".sent").unlink(missing_ok=True)
        if delivery:
            with contextlib.suppress(Exception):  # the server may be away now
                delivery.end_what_was_left_open()
    return count


def _is_the_journals_fault(error: Exception, delivery: "_Delivery | None") -> bool:
    """Whether a line is damaged, or MLflow does not support the address in the journal."""
    if isinstance(error, AttributeError | KeyError | TypeError | ValueError):
        return delivery is None or delivery.is_connected
    return getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"


def _mend_locations(folder: Path) -> None:
    """Update the artifact locations in the project's database, because a project may be moved or copied."""
    if not (folder / "mlflow.db").is_file():
        return
    here = (folder / "artifacts").as_uri()
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        there = database.execute(
            "SELECT artifact_location FROM experiments WHERE artifact_location LIKE ? AND artifact_location != ?",
            [f"file:%/{JOURNALS.parent}/artifacts", here],
        )
        for (old,) in there.fetchall():
            for table, column in _LOCATIONS:
                database.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?) = 1",  # noqa: S608
                    [old, here, old],
                )


class _Delivery:
    """Sends the events of a journal in order, and stores next to it how many are sent."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._progress = path.with_suffix(".sent")
        self._stream = path.open(encoding="utf-8")
        header = self._stream.readline()
        store: Event = json.loads(header) if header.endswith("\n") else {"uri": None, "experiment": ""}
        self._experiment_name = store["experiment"]
        folder = self._path.parents[1]
        self._project = self._path.parents[len(JOURNALS.parts)]  # of which an event's paths are
        ours = f"sqlite:///{folder / 'mlflow.db'}"
        self.uri = str(store["uri"] or ours)
        self.is_connected = False
        self._artifacts = (folder / "artifacts").as_uri() if self.uri == ours else None
        self._runs: dict[str, str] = {}
        self._open: set[str] = set()
        self._known_steps: dict[str, set[int]] = {}
        self._number = 0
        self._client: Any = None

    def send(self) -> Iterator[Event]:
        """Send the events that have not been sent, and yield each."""
        progress = self._progress.read_bytes() if self._progress.is_file() else b""
        done = int(progress) if progress.isdigit() else 0
        while True:
            position = self._stream.tell()
            line = self._stream.readline()
            if not line.endswith("\n"):  # nothing, or what a killed process had begun to write
                self._stream.seek(position)
                return
            self._connect()
            event = json.loads(line)
            self._number += 1
            if self._number > done:
                self._apply(event)
                self._progress.write_text(str(self._number))
                yield event
            if event["op"] == "run":
                self._open.add(event["key"])
            elif event["op"] == "end":
                self._open.discard(event["key"])

    def end_what_was_left_open(self) -> None:
        """Mark the open runs of a dead process as killed."""
        for key in self._open:
            if run_id := self._find(key):
                self._client.set_terminated(run_id, "KILLED")

    def discard(self) -> None:
        """Delete a journal that is completely sent."""
        self._path.unlink(missing_ok=True)
        self._progress.unlink(missing_ok=True)

    def _connect(self) -> None:
        if self.is_connected:
            return
        # By default, MLflow tries for minutes to reach a server.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Keep progress bars and details of uploads out of the console.
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient, entities
        from mlflow.exceptions import MlflowException

        # After the import, which configures the loggers. This one logs tracebacks of errors that are reported below.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self._client, self._entities = MlflowClient(self.uri), entities
        found = self._client.get_experiment_by_name(self._experiment_name)
        # Without this tag, the page of MLflow asks for the kind of experiment.
        kind = ("mlflow.experimentKind", "custom_model_development")
        if found is None:
            self._experiment = self._client.create_experiment(self._experiment_name, self._artifacts, dict([kind]))
        else:
            self._experiment = found.experiment_id
            if kind[0] not in found.tags:
                with contextlib.suppress(MlflowException):  # the experiment may belong to somebody else
                    self._client.set_experiment_tag(self._experiment, *kind)
        self.is_connected = True

    def _apply(self, event: Event) -> None:
        from mlflow.exceptions import MlflowException

        try:
            getattr(self, f"_send_{event['op']}")(event)
        except MlflowException as error:
            if error.error_code not in (_HOPELESS_MODEL if event["op"] == "model" else _HOPELESS):
                raise
            logger.warning("MLflow rejected a record of this run: %s", error)

    def _send_run(self, event: Event) -> None:
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
        params = [self._entities.Param(name, str(value)) for name, value in event["params"].items()]
        for first in range(0, len(params), 100):  # the most that MLflow takes at once
            self._client.log_batch(run.info.run_id, params=params[first : first + 100])

    def _send_metrics(self, event: Event) -> None:
        run_id = self._run_id(event["key"])
        if event["step"] in self._known_steps.get(run_id, ()):
            return  # the epoch during which the earlier process was killed
        metrics = [
            self._entities.Metric(name, value, event["time"], event["step"]) for name, value in event["metrics"].items()
        ]
        self._client.log_batch(run_id, metrics=metrics)

    def _send_dataset(self, event: Event) -> None:
        run_id = self._run_id(event["key"])
        dataset = self._entities.Dataset(
            name=event["name"],
            digest=event["digest"][:36],  # the most that MLflow keeps
            source_type="local",
            source=json.dumps({"uri": event["source"]}),
            profile=json.dumps(event["counts"]),
        )
        tag = self._entities.InputTag("mlflow.data.context", "training")
        self._client.log_inputs(run_id, [self._entities.DatasetInput(dataset, [tag])])
        self._client.set_tag(run_id, "manifest_sha256", event["digest"])

    def _send_artifact(self, event: Event) -> None:
        if (path := self._project / event["path"]).is_file():  # it may have been pruned since
            self._client.log_artifact(self._run_id(event["key"]), str(path))

    def _send_model(self, event: Event) -> None:
        path = str(self._project / event["path"])
        register(self._client, self._experiment, self._run_id(event["key"]), event | {"path": path})

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
    """Send the records that earlier runs could not send."""
    count, outages = replay(JOURNALS)
    if count:
        print(f"Records sent to MLflow: {count}.")  # noqa: T201
    if outages:
        faults = "\n".join(f"  {uri}: {error}" for uri, error in outages.items())
        sys.exit(f"Error: MLflow cannot be reached. The journals stay in {JOURNALS}:\n{faults}")


if __name__ == "__main__":
    main()
