"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header) -> the id of a job, so that a retry finds the first.

The id is made of who asks, the key, the picture's place in the request and the picture. A retry therefore joins
the job that is in flight; over Redis it gets the stored outcome for as long as that is kept, whichever gateway
it comes to. The key with another picture is refused. Parameters are no part of it: they say only how one
answer is shown.
"""

import hashlib
from collections.abc import Awaitable, Callable
from functools import partial

from service.errors import KeyReused
from service.ledger.protocol import Ledger

# From the SHA-256 of a picture to the id of its job. Raises KeyReused or Unavailable.
Naming = Callable[[str], Awaitable[str]]


class Idempotency:
    """Names jobs by the key that came with them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def naming(self, caller: str, key: str, place: int = 0) -> Naming:
        """For one picture of a request.

        Args:
            caller: whose key it is; two callers who chose the same key have nothing in common.
            place: of the picture among the request's.
        """
        return partial(self._name, _digest(caller, key, str(place)))

    async def _name(self, slot: str, sha256: str) -> str:
        if await self._ledger.first(slot, sha256) != sha256:
            raise KeyReused("this Idempotency-Key came before with another picture; a new picture needs a new key")
        return _digest(slot, sha256)


def _digest(*parts: str) -> str:
    """As long as a job's id by chance, and as hard to guess as its parts are."""
    lengths = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(lengths.encode()).hexdigest()[:32]
