"""What an agent says on its lifeline, and by what a scheduler that asks for keys knows that it is that agent. Pure.

A lifeline is plain TCP: its one message is its end. Whoever overhears its words could hold it, too, or let go of it in
its place. So an agent is told a key with the answer to its hello, which is encrypted, and proves it at each connection.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence

KNOWS_LIFELINE_KEY = "lifeline_key"
"""In ``NodeCapability.knows`` of agents that prove that a lifeline is theirs."""


def lifeline_words(node: str, boot: str, turn: int, key: str) -> bytes:
    """What is said first, and nothing else but the end. ``turn`` is greater at each connection; ``key``: "": none."""
    said = f"{node} {boot}"
    if key:
        said += f" {turn} {_proof(key, node, boot, turn)}"
    return f"{said}\n".encode()


def _proof(key: str, node: str, boot: str, turn: int) -> str:
    return hmac.digest(key.encode(), f"{node} {boot} {turn}".encode(), "sha256").hex()


class LifelineKeys:
    """Those that one scheduler tells. What was said once is good for that once."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._last: dict[str, tuple[str, int]] = {}  # node -> its boot, and the turn that it had last

    def key_for(self, node: str, boot: str) -> str:
        """Of one boot of a node: the same whenever it says hello here."""
        return hmac.digest(self._secret, f"{node} {boot}".encode(), "sha256").hex()

    def is_proved(self, words: Sequence[str]) -> bool:
        """Whether the agent that was told the key says these words, now, and not somebody who has heard them."""
        if len(words) != 4 or not words[2].isascii() or not words[2].isdigit() or len(words[2]) > 18:
            return False
        node, boot, turn = words[0], words[1], int(words[2])
        if not hmac.compare_digest(_proof(self.key_for(node, boot), node, boot, turn).encode(), words[3].encode()):
            return False
        known_boot, last = self._last.get(node, ("", -1))
        if known_boot == boot and turn <= last:
            return False
        self._last[node] = (boot, turn)
        return True

    def forget(self, node: str) -> None:
        """It has left."""
        self._last.pop(node, None)
