"""What reaches MLflow when its server is there, away, hung, or dies; real stores, real sockets, real kills."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pandas as pd
import pytest

from efficientnet_finetuning.evaluation.comparison import wilson_interval
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.running.registry import describe
from efficientnet_finetuning.running.tracking import JOURNALS, Journal, replay

KEY, CHILD = "2026-01-01T00.00.00.000Z", "2026-01-01T00.00.00.000Z finetune"


def events(steps=(1, 2, 3)) -> list[dict]:
    run = {"op": "run", "time": 1_000, "params": {"epochs": "3"}}
    return [
        run | {"key": KEY, "name": KEY, "tags": {"env": "local"}, "parent": None},
        run | {"key": CHILD, "name": CHILD, "tags": {"regime": "finetune"}, "parent": KEY},
        *(metrics(step) for step in steps),
    ]


def metrics(step: int) -> dict:
    return {"op": "metrics", "key": CHILD, "metrics": {"loss": 1 / step}, "step": step, "time": 1_000 + step}


ENDS = [{"op": "end", "key": key, "status": "FINISHED", "time": 2_000} for key in (CHILD, KEY)]


@pytest.fixture
def journals(tmp_path) -> Path:
    return tmp_path / "journal"


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """MLflow takes seconds to make one."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path, empty_database) -> dict:
    shutil.copy(empty_database, tmp_path)
    return {"uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "test"}


def record(journals: Path, store: dict, written: list[dict], version: str = KEY) -> float:
    """Write a journal as a run does; returns the seconds that its end took."""
    journal = Journal(journals / f"{version}.jsonl", store)
    for event in written:
        journal.write(event)
    started = time.monotonic()
    journal.close()
    return time.monotonic() - started


def runs(store: dict) -> dict[str, tuple[str, list[int], str | None]]:
    """Status, steps of the loss and name of the parent of each run."""
    from mlflow import MlflowClient

    client = MlflowClient(store["uri"])
    experiment = client.get_experiment_by_name("test")
    found = client.search_runs([experiment.experiment_id])
    names = {run.info.run_id: run.info.run_name for run in found}
    assert len(set(names.values())) == len(names), "no run is there twice"
    return {
        run.info.run_name: (
            run.info.status,
            [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")],
            names.get(run.data.tags.get("mlflow.parentRunId")),
        )
        for run in found
    }


COMPLETE = {KEY: ("FINISHED", [], None), CHILD: ("FINISHED", [1, 2, 3], KEY)}


def test_a_run_arrives_with_its_child_and_its_metrics_and_leaves_no_journal(journals, store):
    record(journals, store, [*events(), *ENDS])
    assert runs(store) == COMPLETE
    assert not list(journals.iterdir())


_DRAW_WHILE_IT_CONNECTS = """
import sys
from pathlib import Path
from threading import Thread
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from efficientnet_finetuning.running.tracking import Journal

sys.setswitchinterval(1e-5)
journal = Journal(Path(sys.argv[1]), {"uri": sys.argv[2], "experiment": "test"})
journal.write({"op": "end", "key": "nobody", "status": "FINISHED", "time": 1})
end = Thread(target=journal.close)
end.start()
while end.is_alive():
    type("Canvas", (FigureCanvasAgg,), {})(Figure())  # matplotlib looks for IPython once in each class
"""


@pytest.mark.slow
def test_figures_are_drawn_while_a_server_is_called(journals):
    uri = f"http://127.0.0.1:{free_port()}"  # a server's client imports IPython, a database's does not
    command = [sys.executable, "-c", _DRAW_WHILE_IT_CONNECTS, journals / "run.jsonl", uri]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


_IMPORT_TFDS_WHILE_IT_CONNECTS = """
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from etils import epy
from efficientnet_finetuning.running.tracking import Journal

@contextmanager
def slowly(*arguments, lazy_imports=epy.lazy_imports, **options):
    with lazy_imports(*arguments, **options):
        time.sleep(0.05)
        yield

epy.lazy_imports = slowly
journal = Journal(Path(sys.argv[1]), {"uri": None, "experiment": "test"})
journal.write({"op": "end", "key": "nobody", "status": "FINISHED", "time": 1})
import tensorflow_datasets
journal.close()
"""


@pytest.mark.slow
def test_tfds_is_imported_while_mlflow_is(journals, store):
    # TFDS replaces Python's `import` eighteen times while it is imported, for all threads. Here it takes its time.
    leave_behind(journals, store)
    command = [sys.executable, "-c", _IMPORT_TFDS_WHILE_IT_CONNECTS, journals / f"{SECOND}.jsonl"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "cannot be reached" not in result.stderr
    assert result.returncode == 0, result.stderr
    assert runs(store) == {KEY: ("KILLED", [], None), CHILD: ("KILLED", [1, 2, 3], KEY)}
    assert not list(journals.iterdir())


def leave_behind(journals: Path, store: dict, lines: list | None = None, version: str = KEY) -> Path:
    """A journal as a killed process leaves it."""
    journals.mkdir(exist_ok=True)
    path = journals / f"{version}.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [store, *(lines or events())]))
    return path


GARBAGE = {
    "zeros": b"\0" * 100 + b"\n",
    "latin-1": "é\n".encode("latin-1"),
    "a list": b"[1]\n",
    "no store": b"{}\n",
    "an unknown store": b'{"uri": "foo://x", "experiment": "test"}\n',
    "a number for a store": b'{"uri": 5, "experiment": "test"}\n',
}
WRONG = {
    "no JSON": "{",
    "a list": "[1]",
    "an unknown operation": '{"op": "launch", "key": "x"}',
    "missing keys": '{"op": "metrics", "key": "begun"}',
    "no key": '{"op": "end"}',
    "wrong types": '{"op": "run", "key": "x", "parent": null, "tags": 1, "params": 1, "time": 1, "name": "x"}',
}
EARLIER, FIRST, SECOND = "2025-12-31T00.00.00.000Z", "2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"


def sent_beside(journals: Path, store: dict, damaged: Path, caplog) -> None:
    """The journal behind a damaged one arrives; the damaged one is named, and kept out of the way."""
    content = damaged.read_bytes()
    leave_behind(journals, store, [*events(), *ENDS])
    _, outages = replay(journals)
    assert not outages
    assert damaged.name in caplog.text
    (aside,) = journals.iterdir()
    assert aside == damaged.with_suffix(".damaged")
    assert aside.read_bytes() == content


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_journal_of_garbage_stops_no_other(journals, store, caplog, content):
    journals.mkdir()
    damaged = journals / f"{EARLIER}.jsonl"
    damaged.write_bytes(content + json.dumps(ENDS[0]).encode() + b"\n")
    sent_beside(journals, store, damaged, caplog)
    assert runs(store) == COMPLETE


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG)
def test_a_journal_with_a_wrong_event_is_sent_up_to_there_and_stops_no_other(journals, store, caplog, line):
    begun = {"op": "run", "time": 1, "key": "begun", "name": "begun", "params": {}, "tags": {}, "parent": None}
    damaged = leave_behind(journals, store, [begun], EARLIER)
    with damaged.open("a") as file:
        file.write(f"{line}\n")
    sent_beside(journals, store, damaged, caplog)
    assert runs(store) == COMPLETE | {"begun": ("KILLED", [], None)}


def test_a_folder_in_the_place_of_a_journal_stops_no_other(journals, store):
    (journals / f"{EARLIER}.jsonl").mkdir(parents=True)
    leave_behind(journals, store, [*events(), *ENDS])
    _, outages = replay(journals)
    assert list(outages) == [str(journals / f"{EARLIER}.jsonl")]
    assert runs(store) == COMPLETE


def test_an_experiment_is_about_models_also_where_it_was_there_before(journals, store):
    from mlflow import MlflowClient

    client = MlflowClient(store["uri"])
    client.create_experiment("test", (journals.parent / "artifacts").as_uri())
    for experiment in ("test", "new"):
        record(journals, store | {"experiment": experiment}, [*events(), *ENDS])
        tags = client.get_experiment_by_name(experiment).tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_experiment_tag(
        client.get_experiment_by_name("test").experiment_id, "mlflow.experimentKind", "finetuning"
    )
    record(journals, store, [*events(), *ENDS])
    assert client.get_experiment_by_name("test").tags["mlflow.experimentKind"] == "finetuning", "the user's own choice"


def with_an_artifact(version: str) -> list[dict]:
    run = {"op": "run", "key": version, "name": version, "time": 1, "params": {}, "tags": {}, "parent": None}
    artifact = {"op": "artifact", "key": version, "path": "report.html", "time": 2}
    return [run, artifact, {"op": "end", "key": version, "status": "FINISHED", "time": 3}]


def artifacts(project: Path) -> dict[str, Path]:
    """Where MLflow looks for each run's artifact, in the project as it is now."""
    from mlflow import MlflowClient
    from mlflow.utils.file_utils import local_file_uri_to_path

    client = MlflowClient(f"sqlite:///{project}/data/08_reporting/mlflow/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    return {run.info.run_name: Path(local_file_uri_to_path(run.info.artifact_uri)) / "report.html" for run in found}


def registered_file(project: Path) -> Path:
    """The champion's file in the registry."""
    from mlflow import MlflowClient
    from mlflow.utils.file_utils import local_file_uri_to_path

    client = MlflowClient(f"sqlite:///{project}/data/08_reporting/mlflow/mlflow.db")
    uri = client.get_model_version_download_uri(MODEL, client.get_model_version_by_alias(MODEL, "champion").version)
    file = Path(local_file_uri_to_path(uri)) / "artifacts" / "champion_model.keras"
    assert file.read_text() == FIRST
    return file


@pytest.mark.parametrize("transfer", [shutil.move, shutil.copytree])
def test_a_project_that_was_moved_or_copied_takes_its_runs_with_it(tmp_path, empty_database, monkeypatch, transfer):
    before, after = tmp_path / "a project", tmp_path / "elsewhere"
    (before / JOURNALS).mkdir(parents=True)
    shutil.copy(empty_database, before / JOURNALS.parent)
    (before / "report.html").write_text("the report")
    store = {"uri": None, "experiment": "test"}
    record(before / JOURNALS, store, with_an_artifact(FIRST)[:2] + champion(before, FIRST)[1:], FIRST)
    leave_behind(before / JOURNALS, store, with_an_artifact(EARLIER), EARLIER)
    transfer(before, after)
    monkeypatch.chdir(after)
    replay(JOURNALS)
    record(after / JOURNALS, store, with_an_artifact(SECOND), SECOND)
    found = artifacts(after)
    assert found.keys() == {EARLIER, FIRST, SECOND}
    assert all(path.is_relative_to(after) and path.read_text() == "the report" for path in found.values())
    assert registered_file(after).is_relative_to(after)
    if before.exists():
        assert artifacts(before).keys() == {FIRST}
        assert registered_file(before).is_relative_to(before)
        assert artifacts(before)[FIRST].is_relative_to(before)


def test_what_is_sent_twice_is_there_once(journals, store):
    record(journals, store, [*events(), *ENDS])
    record(journals, store, [*events(), *ENDS])
    assert runs(store) == COMPLETE


@pytest.fixture
def hanging_server():
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []
        threading.Thread(target=lambda: [held.append(server.accept()) for _ in range(100)], daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def point_to(journals: Path, store: dict, uri: str) -> None:
    """Let the journals name another server, as if the same one were back."""
    for path in journals.glob("*.jsonl"):
        path.write_text(path.read_text().replace(uri, store["uri"]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refused", "hanging"])
def test_a_server_that_is_away_costs_seconds_and_no_metric(journals, store, hanging_server, kind, caplog):
    uri = hanging_server if kind == "hanging" else f"http://127.0.0.1:{free_port()}"
    with caplog.at_level(logging.WARNING):
        assert record(journals, store | {"uri": uri}, [*events(), *ENDS]) < 15
    assert "Nothing is lost" in caplog.text
    point_to(journals, store, uri)
    assert replay(journals) == (7, {})
    assert runs(store) == COMPLETE
    assert not list(journals.iterdir())


def test_a_writer_that_was_killed_leaves_runs_that_the_next_start_closes(journals, store):
    program = (
        "import sys, json, time; from pathlib import Path;"
        "from efficientnet_finetuning.running.tracking import Journal;"
        "journal = Journal(Path(sys.argv[1]), json.loads(sys.argv[2]));"
        "[journal.write(event) for event in json.loads(sys.argv[3])]; print('written', flush=True); time.sleep(60)"
    )
    arguments = [str(journals / f"{KEY}.jsonl"), json.dumps(store), json.dumps(events())]
    writer = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    assert replay(journals) == (0, {}), "a journal whose writer lives is its own business"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    replay(journals)
    assert runs(store) == {KEY: ("KILLED", [], None), CHILD: ("KILLED", [1, 2, 3], KEY)}


def test_a_training_that_goes_on_stays_one_run_with_each_step_once(journals, store):
    record(journals, store, events(steps=(1, 2)))
    later = "2026-01-02T00.00.00.000Z"
    parent, child, *_ = events()
    goes_on = [parent | {"key": later, "name": later}, child | {"parent": later}]
    again = metrics(2) | {"time": 9_000}  # the epoch in which the earlier process died
    ends = [{"op": "end", "key": key, "status": "FINISHED", "time": 9_999} for key in (CHILD, later)]
    record(journals, store, [*goes_on, again, metrics(3), *ends], version=later)
    assert runs(store)[CHILD] == ("FINISHED", [1, 2, 3], later)


def test_a_record_that_the_server_refuses_costs_no_other(journals, store, caplog):
    wrong = {"op": "metrics", "key": CHILD, "metrics": {"a name\n!": 1.0}, "step": 1, "time": 1}
    record(journals, store, [*events(steps=(1,)), wrong, metrics(2), metrics(3), *ENDS])
    assert "MLflow rejected" in caplog.text
    assert runs(store) == COMPLETE


def test_a_store_that_is_away_holds_up_no_other(journals, store):
    away = f"http://127.0.0.1:{free_port()}"
    record(journals, store | {"uri": away}, events(), version="2025-12-31T00.00.00.000Z")
    record(journals, store, [*events(), *ENDS])
    assert runs(store) == COMPLETE
    count, outages = replay(journals)
    assert (count, list(outages)) == (0, [away])


def test_error_pages_of_a_proxy_are_no_verdict_on_a_record(journals, store, caplog):
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(403, "Forbidden")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        record(journals, store | {"uri": uri}, [*events(), *ENDS])
        server.shutdown()
    assert "Nothing is lost" in caplog.text
    point_to(journals, store, uri)
    replay(journals)
    assert runs(store) == COMPLETE


@pytest.mark.parametrize("progress", [b"", b"3.5", b"\0\0", "é".encode("latin-1")])
def test_a_process_that_dies_while_it_notes_its_progress_blocks_nothing(journals, store, progress):
    away = f"http://127.0.0.1:{free_port()}"
    record(journals, store | {"uri": away}, [*events(), *ENDS])
    (journals / f"{KEY}.sent").write_bytes(progress)
    point_to(journals, store, away)
    replay(journals)
    assert runs(store) == COMPLETE


MODEL = "efficientnet-finetuning.photos"
CLASSIFIER = TrainedClassifier(None, ("cat", "dog"), "EfficientNetLite0", 32, "stretch", "bilinear")


def champion(folder: Path, version: str, hits: int = 80, images: str = "photo") -> list[dict]:
    """The events of a run that made a champion, which is right on so many of a hundred test images."""
    path = folder / version / "champion_model.keras"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(version)
    low, high = wilson_interval(hits, 100)
    result = {"regime": "finetune", "top1": hits / 100, "top1_low": low, "top1_high": high}
    predictions = pd.DataFrame({"id": [f"{images}{number}" for number in range(100)], "true": ["cat", "dog"] * 50})
    model = {"op": "model", "key": version, "time": 1_500, "path": str(path)}
    return [
        {"op": "run", "key": version, "name": version, "time": 1_000, "params": {}, "tags": {}, "parent": None},
        model | describe("photos", version, CLASSIFIER, result, predictions),
        {"op": "end", "key": version, "status": "FINISHED", "time": 2_000},
    ]


def registered(store: dict) -> tuple[dict[str, str], str | None]:
    """Number → save version of all registered champions, and the number that has the alias."""
    from mlflow import MlflowClient

    client = MlflowClient(store["uri"])
    versions = {str(found.version): found.tags["save_version"] for found in client.search_model_versions()}
    alias = client.get_registered_model(MODEL).aliases.get("champion") if versions else None
    return versions, alias and str(alias)


def test_a_champion_arrives_as_a_registered_model_without_pickle(journals, store, tmp_path):
    from mlflow import MlflowClient
    from mlflow.models import Model

    record(journals, store, champion(tmp_path, FIRST), FIRST)
    version = MlflowClient(store["uri"]).get_model_version_by_alias(MODEL, "champion")
    assert (version.tags["regime"], version.tags["test_accuracy"]) == ("finetune", "0.8")
    folder = Path(version.source.removeprefix("file://"))
    model = Model.load(folder)
    assert (model.run_id, model.metadata["class_names"]) == (version.run_id, ["cat", "dog"])
    assert model.signature.inputs.input_names() == ["image"]
    requirements = {line.split("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    assert requirements == {"mlflow", "h5py", "keras", "numpy", "pandas", "pillow", "pydantic", "tensorflow", "tqdm"}
    assert (folder / "artifacts" / "champion_model.keras").read_text() == FIRST
    code = folder / "code" / "efficientnet_finetuning"
    assert (code / "bundle" / "classifier.py").is_file()
    assert not (code / "training").exists(), "only what inference needs"
    assert not list(folder.rglob("*.pkl"))


def test_a_champion_that_is_sent_twice_is_there_once(journals, store, tmp_path):
    for _ in range(2):
        record(journals, store, champion(tmp_path, FIRST), FIRST)
    assert registered(store) == ({"1": FIRST}, "1")


def test_a_champion_whose_logging_was_killed_midway_is_logged_once(journals, store, tmp_path):
    from mlflow import MlflowClient

    run, model, end = champion(tmp_path, FIRST)
    record(journals, store, [run], FIRST)
    client = MlflowClient(store["uri"])
    (found,) = client.search_runs(experiments := [client.get_experiment_by_name("test").experiment_id])
    client.create_logged_model(experiments[0], "champion", found.info.run_id)
    record(journals, store, [run, model, end], FIRST)
    assert registered(store) == ({"1": FIRST}, "1")
    (logged,) = client.search_logged_models(experiments)
    assert logged.status.value == "READY"


@pytest.mark.parametrize(
    ("hits", "images", "alias", "words"),
    [
        (
            95,
            "photo",
            "2",
            "it is the new champion: it gets 95.0 % (88.8 % to 97.8 %), version 1 80.0 % (71.1 % to 86.7 %)",
        ),
        (75, "photo", "2", "it is the new champion: it gets 75.0 %"),
        (60, "photo", "1", "version 1 80.0 % (71.1 % to 86.7 %) of the same test images right"),
        (60, "other", "2", "without comparison: version 1 has other test images or labels"),
    ],
)
def test_the_alias_moves_unless_the_newcomer_is_clearly_worse(
    journals, store, tmp_path, caplog, hits, images, alias, words
):
    record(journals, store, champion(tmp_path, FIRST, hits=80), FIRST)
    with caplog.at_level(logging.INFO):
        record(journals, store, champion(tmp_path, SECOND, hits, images), SECOND)
    assert registered(store) == ({"1": FIRST, "2": SECOND}, alias)
    assert words in caplog.text


def test_a_champion_that_is_sent_late_does_not_take_the_alias_from_a_later_one(journals, store, tmp_path):
    record(journals, store, champion(tmp_path, SECOND), SECOND)
    record(journals, store, champion(tmp_path, FIRST, hits=95), FIRST)
    assert registered(store) == ({"1": SECOND, "2": FIRST}, "1")


def test_a_champion_waits_for_a_server_that_is_away(journals, store, tmp_path):
    away = f"http://127.0.0.1:{free_port()}"
    record(journals, store | {"uri": away}, champion(tmp_path, FIRST), FIRST)
    point_to(journals, store, away)
    assert replay(journals) == (3, {})
    assert registered(store) == ({"1": FIRST}, "1")


def test_a_champion_that_was_pruned_before_it_was_sent_costs_no_other_record(journals, store, tmp_path):
    events_ = champion(tmp_path, FIRST)
    Path(events_[1]["path"]).unlink()
    record(journals, store, events_, FIRST)
    assert registered(store) == ({}, None)
    assert runs(store)[FIRST] == ("FINISHED", [], None)


@contextmanager
def mlflow_server(store: dict, folder: Path) -> Iterator[str]:
    """A real one, which is killed in the end."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments = ["--backend-store-uri", store["uri"], "--default-artifact-root", str(folder / "artifacts")]
    server = subprocess.Popen([*command, *arguments], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_a_server_that_dies_midway_loses_nothing(journals, store, tmp_path):
    with mlflow_server(store, tmp_path) as uri:
        journal = Journal(journals / f"{KEY}.jsonl", store | {"uri": uri})
        for event in events(steps=(1, 2)):
            journal.write(event)
        deadline = time.monotonic() + 60
        while not list(journals.glob("*.sent")) and time.monotonic() < deadline:
            time.sleep(0.1)
    for event in [metrics(3), *ENDS]:
        journal.write(event)
    journal.close()
    point_to(journals, store, uri)
    replay(journals)
    assert runs(store) == COMPLETE


@pytest.mark.slow
@pytest.mark.parametrize("status", [403, 404])
def test_a_server_that_takes_no_models_takes_the_rest_of_the_run(journals, store, tmp_path, caplog, status):
    class OldServer(BaseHTTPRequestHandler):
        """Hands everything on but models."""

        def do_GET(self):
            if "logged-models" in self.path or "model-versions" in self.path:
                self.send_error(status)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            request = Request(uri + self.path, body, {"Content-Type": "application/json"}, method=self.command)
            try:
                answer = urlopen(request, timeout=30)
            except HTTPError as error:
                answer = error
            with answer:
                self.send_response(answer.status)
                self.end_headers()
                self.wfile.write(answer.read())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with mlflow_server(store, tmp_path) as uri, ThreadingHTTPServer(("127.0.0.1", 0), OldServer) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        remote = f"http://127.0.0.1:{proxy.server_port}"
        record(journals, store | {"uri": remote}, champion(tmp_path, FIRST), FIRST)
        replay(journals)  # what was too slow for the end of the run
        proxy.shutdown()
    assert "MLflow rejected a record of this run" in caplog.text
    assert runs(store)[FIRST] == ("FINISHED", [], None)
    assert not list(journals.iterdir())


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"no server on port {port}")
