"""Knative, by func-python (func deploy)."""

from worker.function import KnativeFunction


def new() -> KnativeFunction:
    """One of it for each instance."""
    return KnativeFunction()
