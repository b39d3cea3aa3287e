import signal
import subprocess
import sys
import time

import pytest

from efficientnet_finetuning.running.session import Interruptible


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_arrives_in_a_destructor_still_ends_the_block(number, kind):
    class Destroyed:
        def __del__(self) -> None:
            signal.raise_signal(number)

    # A shell's background process, which the tests may be, ignores Ctrl-C.
    original = signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    reached = False
    with pytest.raises(kind), Interruptible(repeat_after=0.1):  # noqa: PT012  the block is what is tested
        Destroyed()
        reached = True
        time.sleep(5)
    assert reached, "or the signal was not dropped, and this test shows nothing"
    assert signal.getsignal(number) == before
    signal.signal(number, original)


def test_a_block_that_ends_by_itself_leaves_nothing_behind():
    with Interruptible(repeat_after=0.1):
        pass
    time.sleep(0.3)


def test_what_every_command_imports_is_light():
    heavy = {"cleanlab", "cleanvision", "keras", "scipy", "sklearn", "tensorflow"}
    code = (
        "import sys, efficientnet_finetuning.running.run_hooks, efficientnet_finetuning.pipeline_registry as p\n"
        "assert p.LADDER\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
