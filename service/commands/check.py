"""`clicv2 check`: whether this installation, and what it is configured to use, is in order."""

import asyncio
import logging
import re
import sys
from difflib import get_close_matches

import typer
from pydantic import ValidationError

from service.commands.options import told
from service.settings import Settings, variables

_NOTHING: dict[str, object] = {}
_PREFIX = "CLICV2_"
# What Kubernetes tells every pod of Services that are called clicv2, clicv2-redis, ...
_OF_KUBERNETES = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)")
_OF_THE_SDK = {"CLICV2_URL", "CLICV2_API_KEY"}


def check() -> None:
    """Try everything that the service would use here as it is configured, one line each, with what to do where
    something is wrong; the exit status is 1 then. It scores a picture of its own, changes nothing, and may be run
    beside a service that is at work.

    \b
    clicv2 check
    CLICV2_REDIS_URL=redis://queue CLICV2_TRITON_URL=triton:8001 clicv2 check
    """
    settings = _settings()
    unread = _tell_unread()
    logging.disable()  # the lines below say it all
    try:
        wrong = settings is None or not asyncio.run(_all(settings)) or unread
    finally:
        logging.disable(logging.NOTSET)
    raise typer.Exit(1 if wrong else 0)


async def _all(settings: Settings) -> bool:
    from service.commands.checks import Wrong, checks  # all of the service, for which other commands are not to wait

    failed: set[str] = set()
    for each in checks(settings):
        try:
            if missing := each.needs & failed:
                raise Wrong(f"not tried, for it needs: {', '.join(sorted(missing))}", "Put right what is wrong above")
            _tell("ok", each.name, await each.look())
        except Exception as error:  # noqa: BLE001  # what is broken may break anywhere, and the other lines are wanted
            failed.add(each.name)
            unforeseen = "" if isinstance(error, Wrong) else f"{type(error).__name__}, which nobody foresaw: "
            _tell("problem", each.name, f"{unforeseen}{error}")
    return not failed


def _settings() -> Settings | None:
    """None if they make no sense, which has been told then."""
    try:
        settings = Settings(**_NOTHING)  # type: ignore[arg-type]  # all comes from the environment
    except ValidationError as error:
        for what in told(error):
            _tell("problem", "settings", f"{what}. Put it right")
        return None
    queue = "gateways and workers over Redis" if settings.redis_url else "gateway and worker in one process"
    model = "Triton" if settings.triton_url else "ONNX Runtime"
    _tell("ok", "settings", f"{queue}, {model}, {settings.threads} threads; Python {sys.version.split()[0]}")
    return settings


def _tell_unread() -> bool:
    """Whether there are variables that look like settings and are none, which have been told then."""
    known = {name.upper() for name in Settings.model_fields}
    ours = {name for name in variables() if name.startswith(_PREFIX) and not _OF_KUBERNETES.fullmatch(name)}
    unread = sorted(ours - {f"{_PREFIX}{name}" for name in known} - _OF_THE_SDK)
    for name in unread:
        meant = get_close_matches(name.removeprefix(_PREFIX), known, 1)
        remedy = f"Is it {_PREFIX}{meant[0]}?" if meant else "Take it away"
        _tell("problem", "settings", f"{name} is no setting, and nobody reads it. {remedy}")
    return bool(unread)


def _tell(verdict: str, name: str, what: str) -> None:
    colour = typer.colors.GREEN if verdict == "ok" else typer.colors.RED
    typer.echo(f"{typer.style(f'{verdict:<8}', fg=colour)}{name:<13}{' '.join(what.split())}")
