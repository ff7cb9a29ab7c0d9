"""lcq completion: what has a shell complete our commands, their options, and the values of those at a tab."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from lcq.cli.examples import examples
from lcq.cli.session import OK, SHELL_ASKS

app = typer.Typer()


@app.command(epilog=examples("lcq completion bash", "lcq completion fish | source"))
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> int:
    """Print what has this shell complete commands, options and their values at the tab key.

    In ~/.bashrc, or in ~/.zshrc below compinit: source <(lcq completion bash); in fish's config.fish: lcq completion
    fish | source.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    sys.stdout.write(get_completion_script(prog_name="lcq", complete_var=SHELL_ASKS, shell=shell) + "\n")
    return OK
