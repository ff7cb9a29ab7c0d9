"""Google Cloud Run functions, and everything else that runs functions-framework. Entry point: clean."""

from worker.function import http as clean

__all__ = ["clean"]
