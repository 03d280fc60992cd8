"""Console script `clicv2`: serve over HTTP, work for gateways, or score files here."""

import asyncio
import json
import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from clicv2.errors import ImageError
from service.app import Service, build, build_worker, create_app, create_worker_app
from service.commands import keys, models
from service.commands.options import or_exit, read_settings
from service.errors import ServiceError
from service.scoring import Scored
from service.server import make_server
from service.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="How visually complex a picture is, and where.")

app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")

Repository = Annotated[Path | None, typer.Option(help="Folder NAME/VERSION/model.onnx.", show_default=False)]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default=False)] = None,
    model_repository: Repository = None,
) -> None:
    """Answer HTTP requests until SIGTERM. All settings come from the environment; the options go before it."""
    service = or_exit(partial(build, read_settings(host=host, port=port, model_repository=model_repository)))
    make_server(or_exit(partial(create_app, service)), service.door, service.settings).run()
    # Not `raise Exit`: Python would wait for the pools' threads, and a native call that hangs never ends.
    logging.shutdown()
    os._exit(0 if service.supervisor.alive else 1)


@app.command()
def worker(
    host: Annotated[str | None, typer.Option(help="Address of /readyz and /metrics.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port of /readyz and /metrics.", show_default=False)] = None,
    model_repository: Repository = None,
) -> None:
    """Score what gateways put into Redis (CLICV2_REDIS_URL) until SIGTERM."""
    settings = read_settings(host=host, port=port, model_repository=model_repository)
    workplace = or_exit(partial(build_worker, settings))
    make_server(create_worker_app(workplace), workplace.worker, settings).run()
    logging.shutdown()
    os._exit(0 if workplace.supervisor.alive else 1)  # see `serve`


@app.command()
def score(
    paths: Annotated[list[Path], typer.Argument(help="Pictures.", exists=True, dir_okay=False)],
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    model_repository: Repository = None,
) -> None:
    """Score pictures on this machine, by the very road that the service uses."""
    service = or_exit(partial(build, _embedded(read_settings(model_repository=model_repository))))
    failed = False
    for path, result in asyncio.run(_score_all(service, paths)):
        failed |= isinstance(result, Exception)
        typer.echo(_json_line(path, result) if json_output else _table_line(path, result))
    if failed:
        raise typer.Exit(1)


def main() -> None:
    app()


def _embedded(settings: Settings) -> Settings:
    """The same without other servers: a picture at hand is scored here, whatever the service of this machine uses."""
    return settings.model_copy(update={"redis_url": None, "triton_url": None})


async def _score_all(service: Service, paths: list[Path]) -> list[tuple[Path, Scored | Exception]]:
    at_once = asyncio.Semaphore(2 * service.settings.threads)  # one in the decoder and one in the model for each core

    async def one(path: Path) -> tuple[Path, Scored | Exception]:
        async with at_once:
            try:
                data = await asyncio.to_thread(path.read_bytes)
                return path, await service.scorer.score(data, time.monotonic() + service.settings.deadline_s)
            except (OSError, ImageError, ServiceError) as error:
                return path, error

    async with service.running():
        return await asyncio.gather(*(one(path) for path in paths))


def _json_line(path: Path, result: Scored | Exception) -> str:
    if isinstance(result, Exception):
        return json.dumps({"path": str(path), "error": str(result)})
    prediction = result.prediction
    return json.dumps({"path": str(path), "score": round(prediction.score, 6), "entropy": round(prediction.entropy, 6)})


def _table_line(path: Path, result: Scored | Exception) -> str:
    return (
        f"{'error':>8}  {path}: {result}"
        if isinstance(result, Exception)
        else f"{result.prediction.score:8.4f}  {path}"
    )


if __name__ == "__main__":
    main()
