"""Folders and files that are made to break what reads them: they work, or are refused by name."""

import json
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from efficientnet_finetuning.data.blocks import map_resumably
from efficientnet_finetuning.data.corrections import Decision, read_corrections, replace_decision
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.sources import check_dataset, fingerprint, is_showable, open_source, reopen
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DatasetParameters

ATTACK = settings(max_examples=50, deadline=None, derandomize=True, database=None)
NOT_UTF8 = os.fsdecode(b"caf\xe9")
NOWHERE = [
    pytest.param("loop", id="a link to itself"),
    pytest.param("~nobody-here/photos", id="an unknown home"),
    pytest.param("x" * 300, id="a long name"),
    pytest.param("a\0b", id="a null byte"),
    pytest.param(NOT_UTF8, id="no UTF-8"),
]
# Cells of a CSV: what people write, and what breaks parsers.
CELLS = st.one_of(
    st.sampled_from(["1.png", "a", "train", "", "~nobody-here/1.png", "x" * 5000, "\0", "a\nb", '"', "\r", "../1.png"]),
    st.text(max_size=8),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder that the examples of a test share."""
    return tmp_path_factory.mktemp("place")


def looked_at(dataset: DatasetParameters):
    """All that a run does before it decodes: the door's check, the fingerprint, the listing, a look at every image."""
    check_dataset(dataset)
    fingerprint(dataset)
    source = open_source(dataset)
    described = json.dumps(source.describe(), ensure_ascii=False).encode()
    findings = inspect_images(reopen(json.loads(described)), dataset, 100.0, seed=0)
    findings.to_csv().encode()
    return source, findings


def refusal(dataset: DatasetParameters) -> str:
    with pytest.raises(InputError) as caught:
        looked_at(dataset)
    return str(caught.value)


@pytest.fixture
def photos(tmp_path, write_classes) -> Path:
    return write_classes(tmp_path / "photos", {"a": 2, "b": 2})


@pytest.mark.parametrize("follow", [False, True])
def test_links_pipes_and_sockets_among_photographs_are_counted_and_left_alone(photos, follow):
    (photos / "a" / "loop.png").symlink_to("loop.png")
    (photos / "a" / "nowhere.png").symlink_to("gone.png")
    (photos / "loop").symlink_to("loop")
    os.mkfifo(photos / "b" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(photos / "b" / "socket.png"))
        source, findings = looked_at(DatasetParameters(path=photos, follow_symlinks=follow))
    assert source.splits == {"train": 4}
    assert source.ignored["broken link or special file"] == 5
    assert (findings["excluded"] == "").all()


def test_what_a_csv_names_that_is_no_file_is_excluded_and_says_why(photos):
    (photos / "loop.png").symlink_to("loop.png")
    os.mkfifo(photos / "pipe.png")
    rows = ["a/0.png,a", "b/0.png,b", "loop.png,a", "pipe.png,a", "a,b", f"{'x' * 300}.png,a", "/dev/zero,b"]
    (photos / "labels.csv").write_text("\n".join(["path,label", *rows]))
    _, findings = looked_at(DatasetParameters(path=photos / "labels.csv", follow_symlinks=True))
    kinds = findings["excluded"].str.partition(":")[0]
    assert list(kinds) == ["", "", *["unreadable"] * 5]


@pytest.mark.parametrize("path", NOWHERE)
def test_a_path_that_leads_nowhere_is_named(tmp_path, path):
    (tmp_path / "loop").symlink_to("loop")
    given = Path(path) if path.startswith("~") else tmp_path / path
    assert "dataset.path" in refusal(DatasetParameters(path=given))


@pytest.mark.parametrize("path", NOWHERE)
def test_corrections_that_lead_nowhere_are_named(tmp_path, photos, path):
    (tmp_path / "loop").symlink_to("loop")
    given = Path(path) if path.startswith("~") else tmp_path / path
    assert "dataset.corrections" in refusal(DatasetParameters(path=photos, corrections=given))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["photos", "photos/a"])
def test_a_folder_without_permission_is_named(tmp_path, photos, closed):
    (tmp_path / closed).chmod(0)
    try:
        assert closed in refusal(DatasetParameters(path=photos))
    finally:
        (tmp_path / closed).chmod(0o700)


@pytest.mark.parametrize("where", ["b", "photos", "image.png", "stray.txt"])
def test_names_that_are_no_utf8_are_refused_by_name_or_are_none_of_ours(tmp_path, photos, where):
    if where == "b":
        (photos / "b").rename(photos / NOT_UTF8)
    elif where == "photos":
        photos = photos.rename(tmp_path / NOT_UTF8)
    elif where == "image.png":
        (photos / "b" / "0.png").rename(photos / "b" / f"{NOT_UTF8}.png")
    else:
        (photos / NOT_UTF8).write_text("no image")
        looked_at(DatasetParameters(path=photos))
        return
    message = refusal(DatasetParameters(path=photos))
    assert r"caf\udce9" in message
    assert "Rename" in message
    message.encode()


def test_a_file_that_vanishes_after_it_was_listed_is_excluded(photos):
    dataset = DatasetParameters(path=photos)
    source = open_source(dataset)
    (photos / "a" / "1.png").unlink()
    findings = inspect_images(source, dataset, 100.0, seed=0)
    assert list(findings["excluded"]) == ["", "unreadable: No such file or directory", "", ""]


@ATTACK
@given(content=st.binary(max_size=60))
@example(b"")
@example(b"\xef\xbb\xbf")
@example(b"path,label\n\0,a\n1.png,b\n")
@example(b"path,label\n~nobody-here/1.png,a\n1.png,b\n")
@example(b"path,path,label\n1.png,2.png,a\n1.png,3.png,b\n")
@example(b'path,label\n"1.png,a\n')
@example("path,label\n1.png,a\n2.png,\u202eb\n".encode())
def test_any_bytes_are_a_csv_or_refused(place, content):
    file = place / "any.csv"
    file.write_bytes(content)
    with suppress(InputError):
        looked_at(DatasetParameters(path=file))


@ATTACK
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=4), quoted=st.booleans())
def test_any_cells_are_a_csv_or_refused(place, rows, quoted):
    file = place / "cells.csv"
    mark = '"' if quoted else ""
    lines = [",".join(f"{mark}{cell}{mark}" for cell in row) for row in [("path", "label", "split", "group"), *rows]]
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    with suppress(InputError):
        looked_at(DatasetParameters(path=file))


@ATTACK
@given(content=st.binary(max_size=60), rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=4))
@example(b"", [("1.png", "new_class", "a\nb")])
@example(b"", [("1.png", "new_class", "a\0b")])
@example(b"", [("1.png", "label", "x" * 200_000)])
@example(b"1.png,,label,a\rb,\n", [])
@example(b"1.png,,new_class,\xed\xa0\x80,\n", [])
def test_any_bytes_are_corrections_or_refused_and_then_stay_as_they_are(place, content, rows):
    file = place / "corrections.csv"
    lines = "".join(f'"{id_}",,{action},"{label}",\n' for id_, action, label in rows)
    before = b"id,sha256,action,label,when\n" + content + lines.encode("utf-8", "surrogatepass")
    file.write_bytes(before)
    try:
        table, names = read_corrections(file, ("a", "b"))
    except InputError:
        with pytest.raises(InputError):
            read_corrections(file, ("a", "b"))
        assert file.read_bytes() == before
        return
    table.to_csv().encode()
    json.dumps(names, ensure_ascii=False).encode()
    assert all(is_showable(name) for name in names)
    replace_decision(file, "other.png", Decision("other.png", "", "keep"))
    again, _ = read_corrections(file, ("a", "b"))
    assert again[again["id"] != "other.png"].reset_index(drop=True).equals(table[table["id"] != "other.png"])


# JSON of every shape, under names that count.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["result", "digest"]), inner),
    max_leaves=6,
)


def once_more(number: int) -> int:
    return number + 1


@ATTACK
@given(kept=st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"result": NaN, "digest": 1}')
@example(b"[" * 100_000)
@example(b"1" * 5000)
@example(b'{"result": "\\ud800", "digest": ""}')
def test_any_bytes_in_the_place_of_a_blocks_result_are_the_result_or_are_made_anew(place, kept):
    (place / "000000.json").write_bytes(kept)
    assert list(map_resumably(once_more, [1], place, map)) == [2]


def test_a_blocks_folder_that_is_removed_meanwhile_is_made_again(tmp_path):
    def remove_and_count(number: int) -> int:
        shutil.rmtree(tmp_path / "blocks", ignore_errors=True)
        return number

    assert list(map_resumably(remove_and_count, [1, 2], tmp_path / "blocks", map)) == [1, 2]
