"""`clicv2 models`: which versions there are, and which of them Triton serves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from clicv2 import contract
from clicv2.errors import ContractError
from service.commands.options import read_settings
from service.settings import Settings

_HELP = """Model versions: in the repository, and in Triton (CLICV2_TRITON_URL).

\b
clicv2 models list
CLICV2_TRITON_URL=triton:8001 clicv2 models load --version 2
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

if TYPE_CHECKING:  # installed only where Triton is used
    from service.registry import Registry

ResultT = TypeVar("ResultT")


@app.command(name="list")
def list_versions() -> None:
    """Every version in the repository, and its state in Triton if there is one.

    \b
    clicv2 models list
    CLICV2_TRITON_URL=triton:8001 clicv2 models list
    """
    settings = read_settings()
    states = _in_triton(settings, lambda registry: registry.list(settings.model)) if settings.triton_url else ()
    state_of = {entry.version: f"{entry.state} {entry.reason}".strip() for entry in states}
    for version in contract.versions(settings.model_repository / settings.model):
        typer.echo(f"{settings.model} {version:>4}  {_facts(settings, version)}  {state_of.get(version, '')}".rstrip())


@app.command()
def load(
    version: Annotated[
        list[int] | None, typer.Option(help="Serve this version and no other; repeat for several.", show_default=False)
    ] = None,
) -> None:
    """Let Triton serve the newest version in its repository, or pin some. No request is lost.

    A pin lasts until the next `load`, or until Triton is restarted.

    \b
    CLICV2_TRITON_URL=triton:8001 clicv2 models load
    CLICV2_TRITON_URL=triton:8001 clicv2 models load --version 2 --version 3
    """
    settings, pinned = read_settings(), version or []
    _in_triton(settings, lambda registry: registry.load(settings.model, pinned))
    typer.echo(f"{settings.model}: {' and '.join(map(str, pinned)) or 'the newest version'} is served")


@app.command()
def unload() -> None:
    """Let Triton serve no version: every request is refused until one is loaded.

    \b
    CLICV2_TRITON_URL=triton:8001 clicv2 models unload
    """
    settings = read_settings()
    _in_triton(settings, lambda registry: registry.unload(settings.model))
    typer.echo(f"{settings.model}: unloaded")


def _facts(settings: Settings, version: int) -> str:
    try:
        manifest = contract.find_version(settings.model_repository / settings.model, version).manifest
    except ContractError as error:
        return f"unusable: {error}"
    return f"{manifest.method}, preprocessing {manifest.fingerprint}, sha256 {manifest.sha256[:12]}"


def _in_triton(settings: Settings, ask: Callable[["Registry"], Awaitable[ResultT]]) -> ResultT:
    """Ask Triton; ends the process with a message if it cannot."""
    if not settings.triton_url:
        typer.echo("clicv2: which Triton? Set CLICV2_TRITON_URL to the host:port of its gRPC", err=True)
        raise typer.Exit(2)
    from service.registry import Registry
    from service.triton_client import TritonClient, TritonError

    async def run(url: str) -> ResultT:
        client = TritonClient(url)
        try:
            return await ask(Registry(client))
        finally:
            await client.close()

    try:
        return asyncio.run(run(settings.triton_url))
    except TritonError as error:
        typer.echo(f"clicv2: {error}", err=True)
        raise typer.Exit(1) from None
