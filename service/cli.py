"""Console script `clicv2`: serve over HTTP, work for gateways, or look at files here."""

import logging
import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from service.commands import check, keys, models, report, score, select
from service.commands.options import or_exit, read_settings

_HELP = """How visually complex a picture is, and where.

\b
clicv2 score photo.jpg
clicv2 serve
clicv2 check
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

app.command(short_help="Score pictures: a row for each.")(score.score)
app.command(short_help="Write a page about a set of pictures.")(report.report)
app.command(short_help="Choose pictures by their complexity.")(select.select)
app.command(short_help="Tell whether all that the service needs here is in order, and what to do.")(check.check)
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clicv2 {version('clicv2-complexity')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """What comes before a command's name."""


Repository = Annotated[Path | None, typer.Option(help="Folder NAME/VERSION/model.onnx.", show_default=False)]


@app.command(short_help="Answer HTTP requests until SIGTERM.")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default=False)] = None,
    model_repository: Repository = None,
) -> None:
    """Answer HTTP requests until SIGTERM. All settings come from the environment; the options go before it.

    \b
    clicv2 serve
    clicv2 serve --host 0.0.0.0 --port 8080
    CLICV2_REDIS_URL=redis://queue CLICV2_TRITON_URL=triton:8001 clicv2 serve
    """
    settings = read_settings(host=host, port=port, model_repository=model_repository)
    # Most of a second, for which neither the other commands nor a shell's completion are to wait.
    from service import log, tracing
    from service.app import build, create_app
    from service.server import make_server

    log.configure(settings.log_format, settings.log_level, trace_id=tracing.trace_id)
    service = or_exit(partial(build, settings))
    make_server(or_exit(partial(create_app, service)), service.door, settings).run()
    if service.tracer:
        service.tracer.close()
    # Not `raise Exit`: Python would wait for the pools' threads, and a native call that hangs never ends.
    logging.shutdown()
    os._exit(0 if service.supervisor.alive else 1)


@app.command()
def worker(
    host: Annotated[str | None, typer.Option(help="Address of /readyz and /metrics.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port of /readyz and /metrics.", show_default=False)] = None,
    model_repository: Repository = None,
) -> None:
    """Score what gateways put into Redis (CLICV2_REDIS_URL) until SIGTERM.

    \b
    CLICV2_REDIS_URL=redis://queue clicv2 worker
    CLICV2_REDIS_URL=redis://queue CLICV2_TRITON_URL=triton:8001 clicv2 worker --port 8001
    """
    settings = read_settings(host=host, port=port, model_repository=model_repository)
    from service import log, tracing  # see `serve`
    from service.app import build_worker, create_worker_app
    from service.server import make_server

    log.configure(settings.log_format, settings.log_level, trace_id=tracing.trace_id)
    workplace = or_exit(partial(build_worker, settings))
    make_server(create_worker_app(workplace), workplace.worker, settings).run()
    if workplace.tracer:
        workplace.tracer.close()
    logging.shutdown()
    os._exit(0 if workplace.supervisor.alive else 1)  # see `serve`


def main() -> None:
    _open_streams()
    app()


def _open_streams() -> None:
    """Put something in the place of streams that whoever started us has closed, or the next file that is opened would
    be the standard output. There nothing is read, results cannot be written, and notes go nowhere."""
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))


if __name__ == "__main__":
    main()
