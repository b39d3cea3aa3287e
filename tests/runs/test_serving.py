"""From a run to a server that answers, really run."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pandas as pd
import pytest

from efficientnet_finetuning.bundle.classifier import Classifier

pytestmark = pytest.mark.slow

MODEL = "efficientnet-finetuning.cifar10_sample"


@pytest.fixture(scope="module")
def environment(trained) -> dict[str, str]:
    """What the README tells to set, and that nothing may be unpickled."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{trained.path}/data/08_reporting/mlflow/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }


@pytest.fixture(scope="module")
def address(environment, tmp_path_factory) -> Iterator[str]:
    """Of a server that was started as the README says, from another folder."""
    folder = tmp_path_factory.mktemp("serving")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["models", "serve", "-m", f"models:/{MODEL}@champion", "--env-manager", "local", "-h", "127.0.0.1"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "-p", str(port)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, folder / "log")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise TimeoutError(log.read_text())


def ask(address: str, *images: str) -> list[dict]:
    body = {"dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}}
    request = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as response:
        return json.loads(response.read(), parse_constant=pytest.fail)["predictions"]


def test_the_server_answers_as_the_champion_does(trained, address):
    photographs = [trained.path / "photos" / name / "3.png" for name in ("red", "blue")]
    answers = ask(address, *(base64.b64encode(path.read_bytes()).decode() for path in photographs), "no image")
    champion = Classifier.champion("cifar10_sample", trained.path / "data")
    expected = champion.predict(photographs).drop(columns="id")
    pd.testing.assert_frame_equal(pd.DataFrame(answers[:2]), expected, check_dtype=False, atol=1e-5)
    assert answers[2]["reason"] == "undecodable: the image is not base64"
    assert answers[2]["probability_1"] is None


def test_too_many_images_are_a_clear_error(address):
    with pytest.raises(HTTPError) as refusal:
        ask(address, *["no image"] * 65)
    assert refusal.value.code == 400
    assert "The request has 65 images. Send 1 to 64 at a time." in refusal.value.read().decode()


def test_the_first_champion_is_registered_and_a_fresh_one_is_not_registered_again(finished, trained):
    assert f"MLflow: registered {MODEL} version 1; it is the first champion" in finished.output
    assert "MLflow: registered" not in trained.kedro("run").stdout


def test_the_newest_champion_takes_the_alias(trained):
    result = trained.kedro("run", "--params", "evaluation.precision=0.9")
    assert f"registered {MODEL} version 2; it is the new champion" in result.stdout
