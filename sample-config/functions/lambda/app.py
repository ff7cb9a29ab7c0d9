"""AWS Lambda, as an image with awslambdaric. Handler: app.handler."""

from worker.function import on_lambda as handler

__all__ = ["handler"]
