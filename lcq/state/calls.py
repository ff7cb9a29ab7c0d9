"""CallBooks: what has come by the one-time addresses of functions' calls. Reads Redis, changes nothing."""

from __future__ import annotations

from lcq.lent import Left, Terms, left_in
from lcq.state.connection import Client, our_errors
from lcq.state.keys import Keys

_EARLIER = 32  # attempts before this one whose results are looked for


class CallBooks:
    """Reads the books of calls."""

    def __init__(self, redis: Client, keys: Keys, url: str) -> None:
        self._redis, self._keys, self._url = redis, keys, url

    async def left(self, task: str, attempt: int) -> list[Left]:
        """What has come by the call of this attempt, and before that of those before it."""
        attempts = range(attempt, max(0, attempt - _EARLIER), -1)
        async with our_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for number in attempts:
                pipe.hgetall(self._keys.call(task, number))
            books = await pipe.execute()
        return [one for number, book in zip(attempts, books, strict=True) for one in left_in(number, book)]

    async def whose(self, digest: str) -> tuple[str, int] | None:
        """The task and the attempt whose call has the token of this digest; None: there is none, or it is over."""
        async with our_errors(self._url):
            method, task, attempt = await self._redis.hmget(self._keys.address(digest), ["method", "task", "attempt"])
            if method != "call" or not task or not (attempt or "").isdigit():
                return None
            over = await self._redis.hget(self._keys.call(task, int(attempt)), "over")
        return None if over else (task, int(attempt))

    async def terms(self, task: str, attempt: int) -> Terms | None:
        """What this attempt's call is paid by; None: nobody knows any more."""
        async with our_errors(self._url):
            text = await self._redis.hget(self._keys.call(task, attempt), "terms")
        return Terms.read(text or "")
