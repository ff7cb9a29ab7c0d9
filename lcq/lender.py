"""The lender: tells the agent that has an attempt by which address its runner has others lent (docs/serverless.md)."""

from __future__ import annotations

from lcq.component import Ground
from lcq.keeper import http_for_others
from lcq.lent import CALLS, Terms
from lcq.sockets import guesses_host
from lcq.wire import CallAnswer, OpenCall


class Lender:
    """``serve()``: from then on ``open_call`` is answered."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def serve(self) -> None:
        self._ground.site.desk.serve(OpenCall, self._open)

    async def _open(self, ask: OpenCall, sender: bytes) -> CallAnswer:
        """Raises:
        TaskNotFound, TransitionRefused: that attempt does not run there.
        """
        ground = self._ground
        public = ground.state.config.http.public_url
        if not (public and ground.site.http):
            return CallAnswer()
        token = await ground.state.open_call(
            ask.task_id,
            attempt=ask.attempt,
            node=ask.node_id,
            seconds=ask.seconds,
            terms=Terms(ask.price_call, ask.price_s, ask.timeout_s),
        )
        return CallAnswer(
            path=CALLS + token, public=public, http=http_for_others(ground), same_host=guesses_host(ground.config)
        )
