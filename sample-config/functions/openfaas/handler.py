"""OpenFaaS, by its template python3-http-debian."""

from worker.function import on_openfaas as handle

__all__ = ["handle"]
