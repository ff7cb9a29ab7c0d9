"""Azure Functions, as a custom handler: functions-framework, at the port that the Functions host names (host.json)."""

import os
import sys

from worker.function import http as clean

__all__ = ["clean"]

if __name__ == "__main__":
    os.environ.update(WORKERS="1", THREADS="1")  # an instance does one call at a time
    port = os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"]
    told = ["--target", "clean", "--source", __file__, "--host", "127.0.0.1", "--port", port]
    os.execv(sys.executable, [sys.executable, "-m", "functions_framework", *told])  # noqa: S606 - no shell is wanted
