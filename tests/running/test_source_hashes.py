"""What counts as a node's code is tested by real runs, in tests/runs/test_incremental.py."""

import subprocess
import sys

# Whatever is collected while a module is parsed parses something, too, as another thread could.
PARSED_AT_ONCE = """
import ast, gc
from efficientnet_finetuning.running.source_hashes import files_of

class Garbage:
    def __init__(self):
        self.itself = self
    def __del__(self):
        (lambda: (lambda: ast.parse("x = 1"))())()
        Garbage()

Garbage()
gc.set_threshold(1)
print(len(files_of("efficientnet_finetuning.training.fit")))
"""


def test_code_is_parsed_while_other_code_is():
    command = [sys.executable, "-c", PARSED_AT_ONCE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20
