"""Whose a lifeline is, where keys are asked for."""

from __future__ import annotations

from lcq.lifelines import LifelineKeys, lifeline_words


def test_an_agent_proves_each_connection_once_and_a_new_boot_begins_anew() -> None:
    keys = LifelineKeys()

    def is_proved(boot: str, turn: int, key: str, node: str = "gpu-1") -> bool:
        return keys.is_proved(lifeline_words(node, boot, turn, key).decode().split())

    key = keys.key_for("gpu-1", "a")
    assert key == keys.key_for("gpu-1", "a") != LifelineKeys().key_for("gpu-1", "a")
    assert [is_proved("a", turn, key) for turn in (1, 1, 3, 2, 4)] == [True, False, True, False, True]
    assert not is_proved("a", 9, keys.key_for("gpu-2", "a"))
    assert not is_proved("b", 9, key)
    assert is_proved("b", 1, keys.key_for("gpu-1", "b"))
    keys.forget("gpu-1")
    assert is_proved("a", 1, key)  # only who has said hello gets so far


def test_words_that_are_no_proof_are_none() -> None:
    keys = LifelineKeys()
    assert not any(
        keys.is_proved(words.split(" "))
        for words in (
            "",
            "gpu-1 a",
            "gpu-1 a 1",
            "gpu-1 a x y",
            "gpu-1 a \N{SUPERSCRIPT TWO} y",
            "a b c d e",
            "a b -1 é",
        )
    )
    assert lifeline_words("gpu-1", "a", 7, "") == b"gpu-1 a\n"  # as to a scheduler that asks for no keys
