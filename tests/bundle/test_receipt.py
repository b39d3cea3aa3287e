import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from efficientnet_finetuning import verify
from efficientnet_finetuning.bundle.evidence import measure
from efficientnet_finetuning.bundle.formats import classifier_file, write_files
from efficientnet_finetuning.bundle.receipt import as_bytes, code_of, make_receipt

OTHERS = {"README.md": b"a card", "saved_model/variables/x.index": b"\0\1\2"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, classifier, test_images) -> Path:
    """A project's data, and a bundle."""
    place = tmp_path_factory.mktemp("made")
    stored = place / "data" / "03_primary" / "photos" / "test_images" / "2026" / "test_images"
    stored.mkdir(parents=True)
    for name, array in dataclasses.asdict(test_images).items():
        np.save(stored / f"{name}.npy", array)
    files = {**OTHERS, "classifier.keras": classifier_file(classifier)}
    write_files(files, place / "bundle")
    receipt = make_receipt(
        files,
        parameters={"seed": 1},
        lineage={"champion_model": {"version": "2026", "content": "abc"}},
        manifest=pd.DataFrame({"id": test_images.ids, "split": "test"}),
        test=test_images,
        metrics=measure(place / "bundle" / "classifier.keras", test_images),
        project=place,
    )
    write_files({"receipt.json": as_bytes(receipt)}, place / "bundle")
    return place


@pytest.fixture
def copy(made, tmp_path) -> Path:
    import shutil

    return shutil.copytree(made, tmp_path / "copy")


def faults(bundle: Path) -> list[str]:
    return list(verify.verify(bundle))


def test_a_bundle_as_it_was_made_passes(made):
    assert faults(made / "bundle") == []
    assert list(verify.verify_metrics(made / "bundle", made / "data")) == []


@pytest.mark.parametrize("name", [*OTHERS, "classifier.keras"])
def test_one_flipped_bit_anywhere_is_named(copy, name):
    file = copy / "bundle" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert faults(copy / "bundle") == [f"{name} differs from the receipt (other SHA-256)"]


def test_what_is_missing_and_what_was_added_is_named(copy):
    (copy / "bundle" / "README.md").unlink()
    (copy / "bundle" / "saved_model" / "evil.so").write_bytes(b"x")
    assert faults(copy / "bundle") == ["README.md is missing", "saved_model/evil.so is not in the receipt"]


def edit(bundle: Path, change) -> None:
    receipt = json.loads((bundle / "receipt.json").read_text())
    change(receipt)
    (bundle / "receipt.json").write_text(json.dumps(receipt))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda receipt: receipt.pop("subject"), "is not complete: 'subject'"),
        (
            lambda receipt: receipt["subject"][0]["digest"].update(sha256="ab"),
            "a SHA-256 of a file, the manifest or the test images is missing",
        ),
        (lambda receipt: receipt.update(predicateType="https://slsa.dev/provenance/v9"), "has an unknown version"),
        (lambda receipt: receipt["subject"][0].update(name="../../etc/passwd"), "outside the bundle"),
        (lambda receipt: receipt.update(predicate=[]), "is not complete"),
    ],
)
def test_a_receipt_that_was_edited_is_named(copy, change, words):
    edit(copy / "bundle", change)
    assert any(words in fault for fault in faults(copy / "bundle"))


def test_without_a_receipt_it_is_no_bundle(tmp_path):
    assert faults(tmp_path) == [
        "receipt.json cannot be read: No such file or directory. Is this the folder of a bundle?"
    ]
    (tmp_path / "receipt.json").write_text("{")
    assert "is not JSON" in faults(tmp_path)[0]


def test_metrics_that_are_not_the_models_are_named(copy):
    def flatter(receipt):
        receipt["predicate"]["buildDefinition"]["internalParameters"]["metrics"]["loss"] -= 1e-4

    edit(copy / "bundle", flatter)
    (fault,) = verify.verify_metrics(copy / "bundle", copy / "data")
    assert fault.startswith("loss is ")


def test_metrics_need_the_same_test_images(copy):
    labels = copy / "data" / "03_primary" / "photos" / "test_images" / "2026" / "test_images" / "labels.npy"
    np.save(labels, np.load(labels)[::-1])
    (fault,) = verify.verify_metrics(copy / "bundle", copy / "data")
    assert "the test images of the receipt are not in" in fault


def test_the_check_of_files_needs_the_standard_library_alone(made, copy, tmp_path):
    """Copied to a machine where nothing is installed."""
    script = tmp_path / "verify.py"
    script.write_bytes(Path(verify.__file__).read_bytes())
    (copy / "bundle" / "README.md").write_text("another card")
    for bundle, code in ((made / "bundle", 0), (copy / "bundle", 1)):
        result = subprocess.run([sys.executable, "-I", "-S", script, bundle], capture_output=True, text=True)
        assert result.returncode == code, result.stderr
        assert ("README.md" in result.stderr) == bool(code)


def test_the_code_is_named_by_its_commit_and_what_differs_from_it(tmp_path):
    assert code_of(tmp_path) == {}
    for command in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m x"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    clean = code_of(tmp_path)
    assert len(clean["gitCommit"]) == 40
    assert "sha256OfUncommittedDiff" not in clean
    (tmp_path / "a.py").write_text("x = 1")
    subprocess.run(["git", "add", "a.py"], cwd=tmp_path, check=True)
    assert code_of(tmp_path)["gitCommit"] == clean["gitCommit"]
    assert len(code_of(tmp_path)["sha256OfUncommittedDiff"]) == 64


def test_a_bundle_is_signed_with_a_key_of_ones_own_and_without_a_network(copy):
    """As the README says; nobody listens at the proxy."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=copy, env=os.environ | proxies, capture_output=True, text=True, check=False, timeout=60
        )

    def sign(what: str, key: str) -> subprocess.CompletedProcess[str]:
        signer = str(Path(sys.executable).with_name("model_signing"))
        return run(signer, what, "key", "bundle", key, key[2:-4] + ".pem", "--signature", "bundle.sig")

    key = ec.generate_private_key(ec.SECP256R1())
    (copy / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (copy / "public.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    signed = sign("sign", "--private_key")
    assert signed.returncode == 0, signed.stderr
    assert faults(copy / "bundle") == [], "the signature lies beside it"
    assert sign("verify", "--public_key").returncode == 0
    (copy / "bundle" / "README.md").write_bytes(b"a carD")
    forged = sign("verify", "--public_key")
    assert forged.returncode == 1
    assert "README.md" in forged.stdout + forged.stderr
