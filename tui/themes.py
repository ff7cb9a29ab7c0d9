"""The console's own colours: every text on every ground it may stand on reads at 4.5 to 1 or better."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="lcq-dark",
    dark=True,
    background="#10151c",
    surface="#161d27",
    panel="#1d2632",
    foreground="#d5dde8",
    primary="#6cb6ff",
    secondary="#8fa3bf",
    accent="#7fdbe8",
    success="#7cc6a0",
    warning="#f0c36a",
    error="#ff9d8a",
    variables={
        "text": "#d5dde8",
        "text-primary": "#8cc7ff",
        "text-secondary": "#a9bad2",
        "text-accent": "#7fdbe8",
        "text-success": "#7cc6a0",
        "text-warning": "#f0c36a",
        "text-error": "#ff9d8a",
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
    },
)

LIGHT = Theme(
    name="lcq-light",
    dark=False,
    background="#fbfbf9",
    surface="#f2f3f0",
    panel="#e7e9e6",
    foreground="#1f2630",
    primary="#0b5394",
    secondary="#4b5a6e",
    accent="#005b6b",
    success="#17603d",
    warning="#7a4b00",
    error="#a3240f",
    variables={
        "text": "#1f2630",
        "text-primary": "#0b5394",
        "text-secondary": "#4b5a6e",
        "text-accent": "#005b6b",
        "text-success": "#17603d",
        "text-warning": "#704500",
        "text-error": "#9c220e",
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
    },
)

THEMES = (DARK, LIGHT)
FALLBACK = {"row-cursor": "surface-lighten-2", "row-marked": "surface-lighten-1", "bar": "text-muted"}
"""Which colour stands in for a variable of our own in a theme that does not know it."""
