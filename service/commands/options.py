"""Settings from a command's options; or an end with a message instead of a traceback."""

from collections.abc import Callable
from typing import TypeVar

import typer
from pydantic import ValidationError

from clicv2.errors import ContractError
from service.settings import Settings

ResultT = TypeVar("ResultT")


def read_settings(**options: object) -> Settings:
    """By environment, and by those options that were given; ends the process with a message if they make no sense."""
    given = {name: value for name, value in options.items() if value is not None}
    return or_exit(lambda: Settings(**given))  # type: ignore[arg-type]  # pydantic checks them


def told(error: ValidationError) -> list[str]:
    """What is wrong with which settings, and not what they are, for some are secrets."""
    return [
        " ".join([*(f"{_variable(str(name))}:" for name in each["loc"][:1]), each["msg"]])
        for each in error.errors(include_url=False, include_input=False)
    ]


def _variable(name: str) -> str:
    return name.upper() if name.upper() in ("HOST", "PORT") else f"CLICV2_{name.upper()}"


def or_exit(make: Callable[[], ResultT]) -> ResultT:
    """What `make` makes; ends the process with a message if it cannot be made."""
    try:
        return make()
    except ValidationError as error:
        for what in told(error):
            typer.echo(f"clicv2: {what}", err=True)
        raise typer.Exit(2) from None
    except (ContractError, ValueError) as error:
        typer.echo(f"clicv2: {error}", err=True)
        raise typer.Exit(2) from None
