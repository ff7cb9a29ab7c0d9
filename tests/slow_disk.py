"""A disk that takes its time to sync: a library of our own before libc's, for a server that is started with it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SOURCE = """
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
  const char *slow = getenv("LCQ_TEST_SLOW_SYNC");
  while (slow && access(slow, F_OK) == 0) usleep(5000);
  return fsync(fd);
}
"""


class SlowDisk:
    """``environment``: what a child process needs so that its fdatasync() does not return within ``slow()``."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            pytest.skip("gcc is not installed, the slow disk cannot be built")
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / "slow-sync.so"
        command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), "-x", "c", "-"]
        subprocess.run(command, input=_SOURCE, text=True, check=True)
        self._flag = folder / "slow"
        self.environment = {"LD_PRELOAD": str(library), "LCQ_TEST_SLOW_SYNC": str(self._flag)}

    @contextmanager
    def slow(self) -> Iterator[None]:
        self._flag.touch()
        try:
            yield
        finally:
            self._flag.unlink()
