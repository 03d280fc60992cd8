"""Ports on the loopback for servers that have to be told theirs before they start.

One that the kernel gave away and took back is anybody's until the server has it: another test's server may get the
same, and so may a connection that somebody makes, or that callers of a server which is away make to themselves. So
these lie below those that the kernel gives away by itself (Linux: from 32768), and each process has its own.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

HOST = "127.0.0.1"
_FIRST, _BLOCK, _BLOCKS = 12_000, 200, 100


def free_port() -> int:
    """One that no other process of tests is given for as long as this one lives, and this one not again."""
    return next(_PORTS)


def _ports() -> Iterator[int]:
    with ExitStack() as held:
        for number in range(_BLOCKS):
            block = held.enter_context(socket.socket(socket.AF_UNIX))
            try:
                # Ends with the process, however that ends; a file would outlive it.
                block.bind(f"\0clicv2-tests-ports-{number}")
            except OSError:
                continue  # another process has it
            first = _FIRST + number * _BLOCK
            yield from filter(_is_free, range(first, first + _BLOCK))
    raise RuntimeError("too many ports were asked for")


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((HOST, port)):
            return True
    except OSError:
        return False


_PORTS = _ports()
