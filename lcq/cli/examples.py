"""How a command's help shows examples."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """An epilog that shows each line as a command to type."""
    shown = "\n\n".join(f"[bold]{line.replace('[', chr(92) + '[')}[/bold]" for line in lines)
    return f"Example{'s' if len(lines) > 1 else ''}:\n\n{shown}"
