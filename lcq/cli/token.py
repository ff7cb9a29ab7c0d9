"""lcq token: who may ask a scheduler over HTTP."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.session import OK, JsonFlag, session_of
from lcq.errors import InvalidInput
from lcq.http.access import Role, new_token
from lcq.lang import tr

app = typer.Typer()

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")


@app.command(epilog=examples("lcq token ann --role submitter", "lcq token prometheus --json"))
def token(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose it is: acts and tasks bear it.")],
    role: Annotated[
        Role, typer.Option("--role", help="viewer looks, submitter gives tasks too, operator may all.")
    ] = Role.VIEWER,
    as_json: JsonFlag = False,
) -> int:
    """Make a token for HTTP: what its bearer sends, and what the settings of the schedulers keep of it."""
    output = session_of(context, as_json).output
    if not _NAME.match(name):
        raise InvalidInput(f"{name!r} is no name for a token", hint="letters, digits and ._@+-, at most 64")
    made, sha256 = new_token()
    if output.as_json:
        output.document({"name": name, "role": role, "token": made, "sha256": sha256})
        return OK
    output.facts(
        [
            (tr("token"), made),
            (tr("is sent as"), f"Authorization: Bearer {made}"),
            (tr("in lcq.yaml"), f'http: {{tokens: {{"{name}": {{role: "{role}", sha256: "{sha256}"}}}}}}'),
        ]
    )
    output.talk(tr("it is shown this once: nothing keeps the token itself"))
    return OK
