"""`clicv2 keys`: who may use the service."""

from pathlib import Path
from typing import Annotated

import typer

from service import keys
from service.allowance import Allowance
from service.commands.options import or_exit, read_settings
from service.keys import Scope

_HELP = """API keys: made, listed and revoked in the file that gateways read.

\b
CLICV2_KEYS_FILE=keys.json clicv2 keys create --name museum
clicv2 keys list --file keys.json
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

File = Annotated[
    Path | None, typer.Option("--file", help="The file of keys, if not CLICV2_KEYS_FILE.", show_default=False)
]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is, for people.")],
    scope: Annotated[Scope, typer.Option(help="read: score pictures; admin: also /metrics.")] = "read",
    rate: Annotated[
        str | None, typer.Option(help="Requests, e.g. 10/second or 600/minute.", show_default=False)
    ] = None,
    quota: Annotated[
        str | None, typer.Option(help="Pictures, e.g. 10000/day, anew at midnight UTC.", show_default=False)
    ] = None,
    file: File = None,
) -> None:
    """Make a key and print it: this once, for the file keeps only its hash.

    \b
    clicv2 keys create --name museum
    clicv2 keys create --name prometheus --scope admin --file keys.json
    KEY=$(clicv2 keys create --name museum --rate 10/second --quota 10000/day)
    """
    key, full = or_exit(
        lambda: keys.make(
            name, scope, Allowance.parse(rate) if rate else None, Allowance.parse(quota) if quota else None
        )
    )
    or_exit(lambda: keys.add(_path(file), key))
    typer.echo(f"clicv2: {name} has the key {key.id} now; nobody can show it again:", err=True)
    typer.echo(full)  # alone on the standard output, so that KEY=$(clicv2 keys create ...) works


@app.command(name="list")
def list_keys(file: File = None) -> None:
    """Every key's id, scope, rate, quota, day and name.

    \b
    clicv2 keys list
    clicv2 keys list --file keys.json
    """
    for key in or_exit(lambda: keys.read(_path(file))):
        rate, quota = key.rate or "-", key.quota or "-"
        typer.echo(f"{key.id}  {key.scope:5}  {rate!s:>14}  {quota!s:>14}  {key.created:%Y-%m-%d}  {key.name}")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="See `clicv2 keys list`.")],
    file: File = None,
) -> None:
    """Refuse a key from now on.

    \b
    clicv2 keys revoke 0123456789abcdef
    """
    key = or_exit(lambda: keys.remove(_path(file), key_id))
    typer.echo(f"{key.id} of {key.name} is revoked")


def _path(given: Path | None) -> Path:
    return given or read_settings().keys_file
