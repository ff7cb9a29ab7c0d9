"""The console's own colours, and what makes those of other themes readable: every text on every ground it may stand on.

No status is told by red against green: what is well and what is wrong differ also for those who see no such difference
(tests/tui/test_look.py computes both, the contrast and the difference).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

from lcq.errors import InvalidInput

LEAST_CONTRAST = 4.5
"""Of every text to the ground it stands on, as WCAG 2 counts (1 to 21)."""

TEXTS = (
    "foreground", "text-primary", "text-secondary", "text-accent", "text-success", "text-warning", "text-error",
    "text-muted",
)  # fmt: skip
"""The variables that text is painted with."""

GROUNDS = ("background", "surface", "panel", "row-cursor", "row-marked")
"""The variables that text stands on."""

_DARK = {
    "text": "#d5dde8",
    "text-primary": "#8cc7ff",
    "text-secondary": "#a9bad2",
    "text-accent": "#c3b8ff",
    "text-success": "#54c8d9",
    "text-warning": "#f0c95c",
    "text-error": "#ff937f",
    "text-muted": "#9fb0c6",
    "text-disabled": "#9fb0c6",
    "row-cursor": "#2b3c55",
    "row-marked": "#2a2f3a",
    "bar": "#5d6c82",
    "block-cursor-background": "#2b3c55",
    "block-cursor-foreground": "#ffffff",
    "input-cursor-background": "#d5dde8",
    "input-cursor-foreground": "#10151c",
    "input-selection-background": "#3a5378",
}
DARK = Theme(
    name="lcq-dark",
    dark=True,
    background="#10151c",
    surface="#161d27",
    panel="#1d2632",
    foreground="#d5dde8",
    primary="#6cb6ff",
    secondary="#8fa3bf",
    accent="#c3b8ff",
    success="#54c8d9",
    warning="#f0c95c",
    error="#ff937f",
    variables=_DARK,
)

_LIGHT = {
    "text": "#1f2630",
    "text-primary": "#0b5394",
    "text-secondary": "#4b5a6e",
    "text-accent": "#5b2fb0",
    "text-success": "#006472",
    "text-warning": "#6b4900",
    "text-error": "#a11d12",
    "text-muted": "#525c69",
    "text-disabled": "#525c69",
    "row-cursor": "#cfe0f3",
    "row-marked": "#e6e4d4",
    "bar": "#7d8794",
    "block-cursor-background": "#cfe0f3",
    "block-cursor-foreground": "#10151c",
    "input-cursor-background": "#1f2630",
    "input-cursor-foreground": "#fbfbf9",
    "input-selection-background": "#b9d3ef",
}
LIGHT = Theme(
    name="lcq-light",
    dark=False,
    background="#fbfbf9",
    surface="#f2f3f0",
    panel="#e7e9e6",
    foreground="#1f2630",
    primary="#0b5394",
    secondary="#4b5a6e",
    accent="#5b2fb0",
    success="#006472",
    warning="#6b4900",
    error="#a11d12",
    variables=_LIGHT,
)

BLUE = Theme(
    name="lcq-blue",
    dark=True,
    background="#0e131b",
    surface="#151c26",
    panel="#1c2531",
    foreground="#d5dde8",
    primary="#8cc7ff",
    secondary="#a9bad2",
    accent="#ffffff",
    success="#6fb7ff",
    warning="#f7e27a",
    error="#ff9e3d",
    variables=_DARK
    | {
        "text-accent": "#ffffff",
        "text-success": "#6fb7ff",
        "text-warning": "#f7e27a",
        "text-error": "#ff9e3d",
        "row-cursor": "#27384f",
        "row-marked": "#2b303a",
    },
)
BLUE_LIGHT = Theme(
    name="lcq-blue-light",
    dark=False,
    background="#fbfbfa",
    surface="#f1f3f5",
    panel="#e6e9ee",
    foreground="#1f2630",
    primary="#0b5394",
    secondary="#4b5a6e",
    accent="#101820",
    success="#0a4fa8",
    warning="#5f5100",
    error="#934000",
    variables=_LIGHT
    | {
        "text-accent": "#101820",
        "text-success": "#0a4fa8",
        "text-warning": "#5f5100",
        "text-error": "#934000",
        "row-marked": "#e8e5d8",
    },
)

# The terminal's own sixteen colours, on its own ground: what it calls black or white only the operator knows.
_ANSI = BUILTIN_THEMES["ansi-dark"].variables | {
    "text": "ansi_default",
    "text-disabled": "ansi_default",
    "text-muted": "ansi_default",
    "text-secondary": "ansi_default",
    "block-cursor-text-style": "reverse",
    "block-cursor-background": "ansi_default",
    "block-cursor-foreground": "ansi_default",
    "input-selection-foreground": "ansi_black",
    "bar": "ansi_default",
}
ANSI = Theme(
    name="lcq-ansi",
    dark=True,
    ansi=True,
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    foreground="ansi_default",
    primary="ansi_bright_cyan",
    secondary="ansi_default",
    accent="ansi_bright_white",
    success="ansi_bright_cyan",
    warning="ansi_bright_yellow",
    error="ansi_bright_red",
    variables=_ANSI
    | {
        "text-primary": "ansi_bright_cyan",
        "text-accent": "ansi_bright_white",
        "text-success": "ansi_bright_cyan",
        "text-warning": "ansi_bright_yellow",
        "text-error": "ansi_bright_red",
        "banner-text": "ansi_black",
        "row-cursor": "ansi_blue",
        "row-marked": "ansi_default",
        "input-cursor-background": "ansi_white",
        "input-cursor-foreground": "ansi_black",
        "input-selection-background": "ansi_bright_cyan",
    },
)
ANSI_LIGHT = Theme(
    name="lcq-ansi-light",
    dark=False,
    ansi=True,
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    foreground="ansi_default",
    primary="ansi_blue",
    secondary="ansi_default",
    accent="ansi_default",
    success="ansi_blue",
    warning="ansi_magenta",
    error="ansi_red",
    variables=_ANSI
    | BUILTIN_THEMES["ansi-light"].variables
    | {
        "text-primary": "ansi_blue",
        "text-accent": "ansi_default",
        "text-success": "ansi_blue",
        "text-warning": "ansi_magenta",
        "text-error": "ansi_red",
        "banner-text": "ansi_bright_white",
        "row-cursor": "ansi_bright_cyan",
        "row-marked": "ansi_default",
        "input-cursor-background": "ansi_black",
        "input-cursor-foreground": "ansi_white",
        "input-selection-background": "ansi_bright_cyan",
    },
)

THEMES = (DARK, LIGHT, BLUE, BLUE_LIGHT, ANSI, ANSI_LIGHT)
"""LCQ's own, the default first. Those of Textual and of plug-ins can be chosen too."""

THEME_NAMES = tuple(theme.name for theme in THEMES)

_FEW_COLOURS = (None, "standard", "windows")  # what a terminal of sixteen colours or fewer is called


def choose_theme(wanted: str, *, colours: str | None, no_colour: bool) -> str:
    """The theme to begin with: ``wanted``, or what suits the terminal where that is "".

    ``colours`` is how rich calls what the terminal can show; ``no_colour``: NO_COLOR is set.

    Raises:
        InvalidInput: there is no such theme.
    """
    if not wanted:
        return ANSI.name if no_colour or colours in _FEW_COLOURS else DARK.name
    if wanted not in THEME_NAMES and wanted not in BUILTIN_THEMES:
        raise InvalidInput(
            f"there is no theme {wanted!r}",
            hint=f"LCQ's own are {', '.join(THEME_NAMES)}; others: {', '.join(sorted(BUILTIN_THEMES))}",
        )
    return wanted


FALLBACK = {
    "row-cursor": "surface-lighten-2",
    "row-marked": "surface-lighten-1",
    "bar": "text-muted",
    "banner-text": "background",
}
"""Which colour stands in for a variable of our own in a theme that does not know it."""


def contrast(one: Color, other: Color) -> float:
    """The contrast of two opaque colours as WCAG 2 counts it, from 1 to 21."""

    def luminance(color: Color) -> float:
        parts = (part / 255 for part in color.rgb)
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


UNREADABLE_AT_CURSOR = frozenset({("lcq-ansi-light", "warn")})
"""Themes and tones that cannot be read at 4.5:1 on the cursor's line: of sixteen colours none else is left for both."""


def legible(variables: Mapping[str, str], *, dark: bool) -> dict[str, str]:
    """Those of another theme's ``variables`` that have to be other colours so that every text can be read.

    ``auto 87%`` and other texts that depend on their ground become plain colours; a ground on which no text of the
    theme could be read (in a theme of loud panels) becomes like the background.
    """
    back = _opaque(variables["background"], Color(0, 0, 0))
    end = Color(255, 255, 255) if dark else Color(0, 0, 0)
    changed: dict[str, str] = {}
    grounds = []
    for name in GROUNDS:
        ground = _opaque(variables[name], back)
        while contrast(end, ground) < 2 * LEAST_CONTRAST:  # room for colours between the ground and white or black
            closer = ground.blend(back, 0.2)
            ground = closer if closer != ground else back.blend(Color(0, 0, 0) if dark else Color(255, 255, 255), 0.5)
        if ground.hex != variables[name]:
            changed[name] = ground.hex
        grounds.append(ground)
    for name in TEXTS:
        told = variables[name]
        text = _opaque(told if not told.startswith("auto") else variables["foreground"], back)
        while min(contrast(text, ground) for ground in grounds) < LEAST_CONTRAST and text != end:
            closer = text.blend(end, 0.1)
            text = closer if closer != text else end
        if text.hex != told:
            changed[name] = text.hex
    return changed


@lru_cache(maxsize=256)
def _opaque(text: str, over: Color) -> Color:
    color = Color.parse(text)
    return color if color.a >= 1 else over.blend(color, color.a, 1.0)
