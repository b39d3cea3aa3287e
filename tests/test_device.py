import os
import subprocess
import sys

import pytest

from efficientnet_finetuning.device import list_gpus, select_device
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DeviceParameters

without_gpu = pytest.mark.skipif(bool(list_gpus()), reason="this machine has a GPU")


@without_gpu
def test_the_device_and_the_precision_are_named():
    line = select_device(DeviceParameters(mixed_precision="bfloat16"))
    assert line.startswith("CPU")
    assert "mixed_bfloat16" in line


@without_gpu
def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error():
    with pytest.raises(InputError, match=r"device\.accelerator is gpu"):
        select_device(DeviceParameters(accelerator="gpu"))


@pytest.mark.slow
def test_the_cpu_can_be_asked_for_where_there_is_a_gpu():
    program = (
        "from efficientnet_finetuning.device import *\n"
        "from efficientnet_finetuning.parameters import DeviceParameters\n"
        "print(select_device(DeviceParameters(accelerator='cpu')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("CPU")
