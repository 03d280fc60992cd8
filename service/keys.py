"""API keys: what they look like, and the file that holds their hashes.

    clicv2_4k7x9m2p_Vn3T...(32)...q8Zc41
    ------ -------- ------------------ ------
    prefix id       secret, 190 bits   checksum

The prefix and the checksum let secret scanners recognise a key that was committed by mistake, without asking us.
The id is public: it finds the entry, and names the key in `clicv2 keys list`.

At rest there is the SHA-256 of the whole key, without salt and without bcrypt: slow hashes defend passwords, which
can be guessed. Nobody guesses 190 random bits, and 100 ms of CPU for each request would be a way to bring us down.

The store is a JSON file, which every gateway reads: mounted read-only, as a Kubernetes secret is, and read again when
it has changed. Not Redis: a Redis that is away would close the door to everybody, or open it; and whoever reaches
ours, which asks for no password on its private network, could give himself a key.
"""

import fcntl
import hashlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
import string
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from service.allowance import Allowance

log = logging.getLogger(__name__)

Scope = Literal["read", "admin"]

FORMAT = re.compile(r"clicv2_(?P<id>[a-z0-9]{8})_(?P<secret>[0-9A-Za-z]{32})(?P<checksum>[0-9A-Za-z]{6})", re.ASCII)
RELOAD_S = 1.0  # how often to look whether the file has changed: so soon a revoked key is refused

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LETTERS = string.ascii_lowercase + string.digits


def _allowance(given: object) -> object:
    return Allowance.parse(given) if isinstance(given, str) else given


_Allowance = Annotated[Allowance, BeforeValidator(_allowance), PlainSerializer(str)]


class KeysError(ValueError):
    """The file of keys cannot be used as it is. The message is meant for the operator."""


class Key(BaseModel):
    """An entry of the file: everything about a key but the key itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]{8}$")
    name: str = Field(min_length=1, max_length=100, description="Whose it is, for people.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the whole key.")
    scope: Scope = Field(description="`read`: score pictures and ask about models; `admin`: also /metrics.")
    rate: _Allowance | None = Field(None, description="Requests; None: as fast as they come.")
    quota: _Allowance | None = Field(None, description="Pictures; None: as many as there are.")
    created: datetime

    def allows(self, wanted: Scope) -> bool:
        return self.scope in ("admin", wanted)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...]


_Signature: TypeAlias = tuple[int, int, int]


class KeyFile:
    """The keys of a file, as of at most a second ago.

    A file that is not there holds no keys: a fresh installation starts, refuses everybody, and takes up the first
    key when it is made. A file that becomes unusable while we run changes nothing: somebody is editing it, and the
    keys that were good stay good.

    Args:
        unusable: called when the file could not be read again.
    """

    def __init__(self, path: Path, clock: Callable[[], float], unusable: Callable[[], None]) -> None:
        self._path = path
        self._clock = clock
        self._unusable = unusable
        self._signature = _signature(path)
        self._keys = {key.id: key for key in read(path)}
        self._look_at = clock() + RELOAD_S
        if not self._keys:
            log.warning("%s holds no keys: every request is refused until `clicv2 keys create` makes one", path)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, presented: str) -> Key | None:
        """The entry of a key that somebody presents; None when it is not valid."""
        self._refresh()
        match = FORMAT.fullmatch(presented)
        if not match or _checksum(match["id"], match["secret"]) != match["checksum"]:
            return None
        key = self._keys.get(match["id"])
        return key if key and hmac.compare_digest(_hash(presented), key.sha256) else None

    def _refresh(self) -> None:
        """A few microseconds once a second, and 1 ms when a small file has changed: no reason to leave the loop."""
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + RELOAD_S
        signature = _signature(self._path)
        if signature == self._signature:
            return
        try:
            if signature is None:
                raise KeysError(f"{self._path} is gone")
            self._keys = {key.id: key for key in read(self._path)}
        except KeysError as error:
            log.error("the keys stay as they were: %s", error)
            self._unusable()
        else:
            log.info("%s has changed: it holds %d keys now", self._path, len(self._keys))
        self._signature = signature


def make(name: str, scope: Scope, rate: Allowance | None = None, quota: Allowance | None = None) -> tuple[Key, str]:
    """A new entry, and the key itself, which is shown once and kept nowhere."""
    key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(8))
    secret = "".join(secrets.choice(_BASE62) for _ in range(32))
    full = f"clicv2_{key_id}_{secret}{_checksum(key_id, secret)}"
    created = datetime.now(UTC).replace(microsecond=0)
    return Key(id=key_id, name=name, sha256=_hash(full), scope=scope, rate=rate, quota=quota, created=created), full


def read(path: Path) -> tuple[Key, ...]:
    """The entries of a file, none if there is no file. Raises KeysError."""
    try:
        keys = _File.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise KeysError(f"{path} is no file of keys: {where}") from None  # its input is not to be repeated in a log
    if len({key.id for key in keys}) < len(keys):
        raise KeysError(f"{path} has two keys with one id")
    return keys


def add(path: Path, key: Key) -> None:
    """Raises KeysError."""
    with _alone(path):
        keys = read(path)
        if any(key.id == other.id for other in keys):  # 1 in 10^12
            raise KeysError(f"there is a key with the id {key.id} already; try again")
        _write(path, (*keys, key))


def remove(path: Path, key_id: str) -> Key:
    """Take an entry out of the file, which revokes its key. Raises KeysError."""
    with _alone(path):
        keys = read(path)
        gone = next((key for key in keys if key.id == key_id), None)
        if gone is None:
            raise KeysError(f"{path} has no key with the id {key_id!r}")
        _write(path, tuple(key for key in keys if key is not gone))
    return gone


def wanted(auth: Literal["on", "off"] | None, host: str) -> bool:
    """Whether callers need a key. Raises ValueError when nobody has decided.

    On the loopback nobody is exposed, so no. On any other address both answers are dangerous to assume: open, strangers
    use the machine; closed, a new version starts, is ready, and answers all of its callers with 401. So there the
    process does not start, which whoever deploys it sees at once and while the old version still runs.
    """
    if auth:
        return auth == "on"
    if not _is_loopback(host):
        raise ValueError(
            f"who may use the service at {host or 'all addresses'}? Set CLICV2_AUTH=on (callers need a key, see "
            "`clicv2 keys`) or CLICV2_AUTH=off (whoever reaches it)"
        )
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hash(full: str) -> str:
    return hashlib.sha256(full.encode()).hexdigest()


def _checksum(key_id: str, secret: str) -> str:
    """CRC-32 in six letters, for typing errors and scanners; it protects nothing."""
    rest, letters = zlib.crc32(f"{key_id}_{secret}".encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        letters = _BASE62[digit] + letters
    return letters


def _signature(path: Path) -> _Signature | None:
    """Differs when the file has been written or replaced; Kubernetes replaces a link on the way to it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two commands at once would each write what it has read, and one of the two keys were lost."""
    try:
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise KeysError(f"{path} cannot be written: {error.strerror}") from error


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """Replace the file as a whole, so that who reads it meanwhile sees the old one or the new one.

    Everybody may read it: a gateway in a container has another user, and a hash of 190 random bits tells nothing.
    """
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(_File(keys=keys).model_dump_json(indent=2, exclude_none=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
