"""The moves of functions' calls: addresses that are good for one transfer, and bills that come late."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lcq.errors import AddressBusy, AddressUnknown, AddressUsed, TaskNotFound, TooLarge, TransitionRefused
from lcq.ids import new_id
from lcq.lent import LONGEST_S, MOST_ADDRESSES, Part, Taken, Terms, Way, digest_of, new_token
from lcq.spend import millionths
from lcq.state.moves.mover import Mover

_REMOVED_S = 0.5  # within which bytes that are being removed are gone


class WrongWay(Exception):
    """An address is for another method: ``way``."""

    def __init__(self, way: str) -> None:
        super().__init__(way)
        self.way = way


class CallMoves(Mover):
    """Addresses: lent, used, and over."""

    async def open_call(self, task_id: str, *, attempt: int, node: str, seconds: float, terms: Terms) -> str:
        """The token of an attempt's call, good for ``seconds``. ``terms``: by which a late bill is read.

        Raises:
            TaskNotFound.
            TransitionRefused: that attempt does not run on that node.
        """
        token, digest = new_token()
        told = json.dumps({"price_call": terms.price_call, "price_s": terms.price_s, "timeout_s": terms.timeout_s})
        answer = await self._move("open_call", task_id, attempt, node, digest, _ms(seconds), told)
        if answer[0] == "missing":
            raise TaskNotFound(task_id)
        if answer[0] == "fenced":
            raise TransitionRefused("open_call", f"attempt {attempt} of task {task_id}", f"{answer[1]}, elsewhere")
        return token

    async def lend_address(
        self, call: str, way: Way, part: Part, *, of: str = "", seconds: float, size: int, sha256: str = "",
        attempt: int = 0,
    ) -> tuple[str, str]:  # fmt: skip
        """The token of a new address of the call with the token ``call``, and the digest of it.

        ``size``: bytes of what goes through it, whose ``sha256`` it is; the most of them where that is not known yet.
        ``of``: what was asked, of a result; of a reply that is fetched, the name of the address that it came by.
        ``attempt``: whose part it is, where that is an earlier one's.

        Raises:
            AddressUnknown: there is no such call any more.
            TooLarge: it has as many addresses as it may.
        """
        token, digest = new_token()
        name = f"{part}:{of or digest[:16]}" if part in (Part.RESULT, Part.REPLY) else str(part)
        answer = await self._move(
            "lend_address", digest_of(call), digest, way, name, _ms(seconds), sha256, size, MOST_ADDRESSES,
            attempt or "",
        )  # fmt: skip
        if answer[0] == "unknown":
            raise AddressUnknown
        if answer[0] == "full":
            raise TooLarge(f"a call has {MOST_ADDRESSES} addresses at most", hint="begin another attempt")
        return token, digest

    async def take_address(self, token: str, way: Way, *, size: int | None, seconds: float) -> Taken:
        """Begin a transfer of ``size`` bytes (None: nobody has said) that takes at most ``seconds``. End it by
        ``settle_address``.

        Raises:
            AddressUnknown: it was never lent, its time is over, or nothing has come for it.
            AddressUsed, AddressBusy, WrongWay.
            TooLarge: more was announced than may come.
        """
        digest, holder = digest_of(token), new_id()
        told = ("" if size is None else size, holder, _ms(seconds))
        answer = await self._move("take_address", digest, way, *told)
        match answer[0]:
            case "unknown":
                raise AddressUnknown
            case "method":
                raise WrongWay(answer[1])
            case "used":
                raise AddressUsed
            case "busy":
                raise AddressBusy(int(answer[1]) / 1000)
            case "too_large":
                raise TooLarge(f"this address takes {int(answer[1]):,} bytes at most, and more were announced")
        _, sha256, most, part, task, attempt, over = answer
        return Taken(digest, holder, sha256, int(most), part, task, int(attempt), over == "1")

    async def name_bytes(self, taken: Taken, sha256: str) -> None:
        """What has come by a transfer is of that digest, and about to lie among the blobs. Before that, for else two
        that bring the same at the same time each take the other's for somebody's who keeps them.

        Raises:
            AddressUsed: somebody else's was whole before.
            AddressBusy: the same bytes are just being removed: bring them again.
        """
        answer = await self._move("name_bytes", taken.digest, taken.holder, sha256)
        if answer[0] == "lost":
            raise AddressUsed
        if answer[0] == "busy":
            raise AddressBusy(_REMOVED_S)

    async def settle_address(
        self,
        taken: Taken,
        *,
        is_whole: bool,
        sha256: str = "",
        size: int = 0,
        was_there: bool | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        """A transfer has ended; ``is_whole``: then the address is used up. ``sha256`` of ``size`` bytes: what has come,
        with what else is ``told`` of it; ``was_there``: whether the same was among the blobs before; None: nobody has
        looked.

        Raises:
            AddressUsed: somebody else's was whole before.
            AddressBusy: the same bytes are just being removed: bring them again.
        """
        left = json.dumps({**(told or {}), "sha256": sha256, "size": size}) if sha256 else ""
        whole, known = "1" if is_whole else "0", "" if was_there is None else str(int(was_there))
        answer = await self._move("settle_address", taken.digest, taken.holder, whole, left, sha256, known)
        if answer[0] == "lost" and is_whole:
            raise AddressUsed
        if answer[0] == "busy":
            raise AddressBusy(_REMOVED_S)

    async def close_call(self, call: str, *, removed: Sequence[str] = ()) -> tuple[str, ...]:
        """The call with this token is over. Answers the digests of what came by it and is in no other call: remove
        these, and say so by ``removed``; until then nobody may bring the same bytes."""
        answer = await self._move("close_call", digest_of(call), *removed)
        return tuple(answer[1:]) if answer[0] == "ok" else ()

    async def bill_attempt(self, task_id: str, *, attempt: int, cost: float, is_last: bool) -> bool:
        """What an attempt has cost that ended without a bill; answers whether the books were corrected by it.

        Of one that still runs it is kept, for the case that this ends without a bill; unless it may make another call,
        after one that was not taken (``is_last`` is false).
        """
        answer = await self._move("bill_attempt", task_id, attempt, millionths(cost), int(is_last))
        return bool(answer[0] == "ok")


def _ms(seconds: float) -> int:
    return max(1, int(min(seconds, LONGEST_S) * 1000))
