import hashlib
import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.torch_weights import read_torch_weights


@dataclass(frozen=True)
class Name:
    """A global that is written by name, so that PyTorch need not be installed to write its files."""

    module: str
    name: str

    def __call__(self):
        raise AssertionError("only pickle's writer asks whether this is callable")


@dataclass(frozen=True)
class Storage:
    key: str
    elements: np.ndarray
    kind: str = "FloatStorage"
    promised: int | None = None

    @property
    def size(self) -> int:
        return len(self.elements) if self.promised is None else self.promised


@dataclass(frozen=True)
class Call:
    function: Name
    arguments: tuple

    def __reduce__(self):
        return self.function, self.arguments


class TorchPickler(pickle._Pickler):
    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", Name("torch", obj.kind), obj.key, "cpu", obj.size, None)
        return None


def tensor(storage: Storage, shape: tuple, strides: tuple, offset: int = 0) -> Call:
    arguments = (storage, offset, shape, strides, False, OrderedDict())
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def legacy_file(state: object, *storages: Storage, magic: int = 0x1950A86A20F9469CFC6C) -> bytes:
    """What ``torch.save(state, …, _use_new_zipfile_serialization=False)`` writes."""
    file = io.BytesIO()
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for part in (magic, 1001, machine, state, [storage.key for storage in storages]):
        TorchPickler(file, protocol=2).dump(part)
    for storage in storages:
        file.write(storage.size.to_bytes(8, "little") + storage.elements.tobytes())
    return file.getvalue()


@pytest.fixture
def pth(tmp_path):
    def write(content: bytes):
        path = tmp_path / "model.pth"
        path.write_bytes(content)
        return path

    return write


FLOATS = Storage("94", np.arange(12, dtype="<f4"))
COUNTS = Storage("95", np.array([7], "<i8"), "LongStorage")
GOOD = legacy_file(
    OrderedDict(
        kernel=tensor(FLOATS, (3, 4), (4, 1)),
        transposed=tensor(FLOATS, (4, 3), (1, 4)),
        tail=tensor(FLOATS, (2,), (1,), offset=10),
        batches=tensor(COUNTS, (), ()),
    ),
    FLOATS,
    COUNTS,
)


def test_tensors_come_back_with_their_values_shapes_types_and_strides(pth):
    tensors = read_torch_weights(pth(GOOD), hashlib.sha256(GOOD).hexdigest())
    assert list(tensors) == ["kernel", "transposed", "tail", "batches"]
    kernel = np.arange(12, dtype="float32").reshape(3, 4)
    np.testing.assert_array_equal(tensors["kernel"], kernel, strict=True)
    np.testing.assert_array_equal(tensors["transposed"], kernel.T, strict=True)
    np.testing.assert_array_equal(tensors["tail"], np.array([10, 11], "float32"), strict=True)
    np.testing.assert_array_equal(tensors["batches"], np.array(7, "int64"), strict=True)


def test_a_pickle_that_asks_for_a_shell_is_refused_by_name_and_runs_nothing(pth, tmp_path):
    marker = tmp_path / "executed"
    path = pth(legacy_file(OrderedDict(kernel=Call(Name("os", "system"), (f"touch {marker}",)))))
    with pytest.raises(InputError, match=r"model\.pth.*it uses os\.system"):
        read_torch_weights(path)
    assert not marker.exists()


def test_another_checksum_is_refused_before_anything_is_parsed(pth):
    path = pth(b"not even a pickle")
    with pytest.raises(InputError, match=rf"(?s)model\.pth.*SHA-256 is [0-9a-f]{{64}} instead of {'0' * 64}.*Install"):
        read_torch_weights(path, "0" * 64)


def test_a_file_cut_short_anywhere_is_refused(pth):
    for length in range(len(GOOD)):
        with pytest.raises(InputError, match=r"model\.pth is not a legacy PyTorch state dict"):
            read_torch_weights(pth(GOOD[:length]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pth does not exist"):
        read_torch_weights(tmp_path / "absent.pth")


def test_a_file_with_another_magic_number_is_refused(pth):
    with pytest.raises(InputError, match="no magic number"):
        read_torch_weights(pth(legacy_file(OrderedDict(), magic=1)))


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((13,), (1,), 0), ((3, 4), (4, 1), 1), ((2,), (100,), 0), ((2,), (-1,), 5), ((2, 2), (1,), 0)],
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(pth, shape, strides, offset):
    content = legacy_file(OrderedDict(kernel=tensor(FLOATS, shape, strides, offset)), FLOATS)
    with pytest.raises(InputError, match="not a legacy PyTorch state dict"):
        read_torch_weights(pth(content))


@pytest.mark.parametrize("promised", [13, 2**62])
def test_a_storage_that_promises_more_than_the_file_holds_is_refused(pth, promised):
    storage = Storage("94", FLOATS.elements, promised=promised)
    content = legacy_file(OrderedDict(kernel=tensor(storage, (3, 4), (4, 1))), storage)
    with pytest.raises(InputError, match=r"model\.pth is not a legacy PyTorch state dict"):
        read_torch_weights(pth(content))
