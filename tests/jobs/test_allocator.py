from __future__ import annotations

import os
import subprocess
import sys

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc only")

PROGRAM = """
import resource, sys
from napari_covseg.jobs import allocator
import numpy as np

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

if sys.argv[1] == "keep":
    allocator.keep_freed_memory()
block = np.ones(2**26, np.uint8)
del block
print(resident() > 64)
allocator.give_back_memory()
print(resident() > 64)
"""


def resident_after(*arguments: str, **environment: str) -> list[str]:
    """Whether 64 MB are still there after they were freed, and after they were given back."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@linux
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    from napari_covseg.jobs.allocator import KEEP_FREED

    assert resident_after("no") == ["False", "False"]
    assert resident_after("keep") == ["True", "False"]
    assert resident_after("no", **KEEP_FREED) == ["True", "False"]
