"""What must not be told on, though a function may say it back: tokens, and addresses that are rights. Pure."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

_SHORTEST = 6  # characters: what is shorter is no secret, and may be in any word
_HEAD = 12  # so many of its first are enough to know a secret by: an answer may be cut short within it
_LONG_STEP = 20  # characters of a path's last step that may well be a right


class Hidden:
    """Takes what it was told to hide out of texts. What is hidden grows while a call is made."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, *secrets: str) -> None:
        """Hide these."""
        self._secrets.update(secret for secret in secrets if len(secret) >= _SHORTEST)

    def add_url(self, url: str, *, is_right: bool = True) -> None:
        """Hide what gives the right to ``url``: a password, its query; where it has none, what it ends with
        (``is_right``)."""
        try:
            parts = urlsplit(url)
            password = parts.password or ""
        except ValueError:  # it is no address, and is called by nobody
            return
        values = [pair.partition("=")[2] for pair in parts.query.split("&")]
        steps = [parts.path.rpartition("/")[2]] if is_right and not parts.query else []
        long_ones = [one for one in (*values, *steps) if len(one) >= _LONG_STEP]
        self.add(password, parts.query, *long_ones, *map(unquote, long_ones))

    def __call__(self, text: str) -> str:
        """``text`` without any of them."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            at = text.find(secret[:_HEAD])
            while at >= 0:
                end = at
                while end < len(text) and end - at < len(secret) and text[end] == secret[end - at]:
                    end += 1
                text = f"{text[:at]}…{text[end:]}"
                at = text.find(secret[:_HEAD], at + 1)
        return text
