"""AsyncClient: all that a program can ask of a cluster, from a coroutine."""

from __future__ import annotations

from lcq.client.alerting import Alerting
from lcq.client.following import Following
from lcq.client.keeping import Keeping
from lcq.client.login import login_name
from lcq.client.operating import Operating
from lcq.client.steering import Steering
from lcq.client.submitting import Submissions
from lcq.config import DistributedConfig, load
from lcq.keyring import Credential
from lcq.tracing import trace_from_here


class AsyncClient(Following, Steering, Operating, Alerting, Keeping):
    """A connection to a cluster, for ``async with``. Safe to use from many coroutines of one event loop.

    Every request is sent again, under the same id, until it is answered: a lost message or a scheduler that
    is restarted costs time, and nothing is done twice. After ``timeout_s`` without an answer
    ``SchedulerUnreachable`` is raised. What a scheduler refuses is raised as the ``LcqError`` it names.

    It is connected to every scheduler that it was given or that an answer has named, and asks those that are
    there in turn: while one of them lives, a request is answered.
    """

    def __init__(
        self,
        config: DistributedConfig | None = None,
        *,
        scheduler: str | None = None,
        actor: str | None = None,
        timeout_s: float = 10.0,
        credential: Credential | None = None,
    ) -> None:
        """``config`` default: the layers of ``lcq.config.load()``; ``actor``: the login name.

        ``scheduler``: "HOST:PORT", or several with commas; default: as the configuration says.
        ``credential``: what is shown where keys are asked for; default: this user's key (docs/enrolment.md).

        Raises:
            InvalidConfig, InvalidInput: the settings or ``scheduler`` cannot be used.
        """
        settings = config or load()
        super().__init__(settings, scheduler, actor or login_name(), timeout_s, credential=credential)
        trace_from_here(settings)
        self._submissions = Submissions()
