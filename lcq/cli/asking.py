"""What commands that only ask begin and end alike with: a scheduler is asked, and its answer told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from lcq.cli.output import Output
from lcq.cli.session import OK, Session, run
from lcq.client import AsyncClient

T = TypeVar("T")


def ask_and_tell(
    session: Session, ask: Callable[[AsyncClient], Awaitable[T]], tell: Callable[[T, Output], None], *, key: str = ""
) -> int:
    """Tell what ``ask`` answers: people by ``tell``, programs as one JSON document, under ``key`` if one is given.

    Raises:
        LcqError: nobody answers, or it is refused.
    """

    async def work() -> T:
        async with session.client() as client:
            return await ask(client)

    answer, output = run(work()), session.output
    if output.as_json:
        output.document({key: answer} if key else answer)
    else:
        tell(answer, output)
    return OK
