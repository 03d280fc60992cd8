"""The backend for production: Triton Inference Server over gRPC, behind a circuit breaker.

Not proved, it is unhealthy: at first, and from a failure that says that the next call would fail too
until a picture of the backend's own has been answered. So Triton may start later than its callers, die
and come back, and one that prepares pictures otherwise than the model expects never becomes ready.

What a failure means:
    wrong request, model's error       BackendError: with other pictures it might not fail
    connection, dead stub, no such     BackendDown, and the breaker opens at once
      model, empty or foreign answers
    no answer to any call for stall_s  the same for all calls that wait
    no answer to one in timeout_s      BackendDown; enough of them open the breaker, as do errors
    Triton's queue is full             asked again a few times, then BackendDown; no sign of illness
    shared memory is not to be had     the same by the wire, until the next connection
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clicv2 import contract, triton
from clicv2.contract import Float32, Manifest
from clicv2.errors import ContractError
from clicv2.imaging import Pixels
from service.backend.protocol import BackendDown, BackendError
from service.backend.shared_memory import NotShared, SharedMemory
from service.prediction import BadOutput, Predictions
from service.registry import Registry
from service.resilience import Breaker, BreakerLimits, Progress
from service.triton_client import Config, Kind, Reply, Tensor, TritonClient, TritonError

log = logging.getLogger(__name__)

# Of a probe. A dead stub is reported after 1 to 2 s, and must be, so that it can be told from a slow model.
LIVE_S = 0.5
PROBE_S = 3.0
# How long calls of a model with a stub still wait once Triton is taken to be silent. Triton reports a dead stub to one
# request after the other, 1 s each, so it is they who hear of it first, and a probe comes after all of them.
WITNESS_S = 1.2
# How long a probe then still waits: another process may have started the stub again, and that one answers at once.
CERTAIN_S = 0.2
# Waits before a request that met a full queue is sent again, each halved or not by chance.
FULL_QUEUE_WAITS_S = (0.02, 0.05, 0.1)


@dataclass(slots=True)
class TritonCounts:
    """What happened so far.

    Attributes:
        calls: inferences sent for callers.
        probes: connections tried with a picture of our own, which also goes through shared memory.
        refused: answers "the queue is full", which Triton itself counts nowhere.
        reloads: times that a model with a dead process was started again.
    """

    calls: int = 0
    probes: int = 0
    refused: int = 0
    reloads: int = 0


class TritonBackend:
    """See `service.backend.protocol.Backend`; makes its connection in the event loop that calls it first.

    Attributes:
        counts: what happened so far.
    """

    def __init__(
        self,
        url: str,
        model: Path,
        *,
        version: int | None = None,
        calls: int = 4,
        timeout_s: float = 5.0,
        stall_s: float = 0.9,
        sharing: Literal["on", "off", "auto"] = "auto",
        share: Callable[[TritonClient], SharedMemory] = SharedMemory,
        limits: BreakerLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the manifest; Triton need not be there yet.

        Args:
            url: host:port of Triton's gRPC.
            model: folder REPOSITORY/NAME as Triton reads it; the manifests beside the versions are read from it.
            version: the only one whose answers are wanted; None: the newest that Triton has loaded.
            calls: how many may be on their way at once.
            timeout_s: longest wait for one answer, while others are answered.
            stall_s: longest wait while nothing is answered; above what a whole batch takes.
            sharing: whether pictures go through shared memory where Triton can read it; "on" warns where not.
            share: makes a connection's shared memory.

        Raises ContractError when there is no manifest to go by.
        """
        self.counts = TritonCounts()
        self._url = url
        self._model = model
        self._version = version
        self._calls = calls
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._sharing = sharing
        self._share = share
        self._clock = clock
        # Pictures are prepared by this manifest's settings for as long as the process lives.
        self._manifest = contract.open_version(model, version).manifest
        self._fingerprint = self._manifest.fingerprint
        self._vetted: dict[int, Manifest] = {}
        self._max_batch_size = triton.MAX_BATCH_SIZE
        self._picture = _picture(self._manifest)
        self._client: TritonClient | None = None
        self._memory: SharedMemory | None = None  # shared by way of `_client`
        self._why_wire = ""
        self._closed = False
        self._breaker = Breaker(limits or BreakerLimits(), f"Triton at {url} has not been asked yet")
        self._progress = Progress()
        self._watch: asyncio.TimerHandle | None = None
        self._has_stub = False
        self._witnesses: TritonClient | None = None  # given up, but its calls still wait
        self._dismissed = asyncio.Event()  # they need not
        self._stub_died = asyncio.Event()  # as a call was told since the last probe
        self._probing = asyncio.Lock()
        self._vetting = asyncio.Lock()
        self._dropped: set[asyncio.Task[None]] = set()

    @property
    def manifest(self) -> Manifest:
        """Of the version that answered last."""
        return self._manifest

    @property
    def slots(self) -> int:
        return self._calls

    @property
    def healthy(self) -> bool:
        return self._breaker.closed

    @property
    def opened(self) -> int:
        """How often the breaker has opened."""
        return self._breaker.opened

    @property
    def events(self) -> Mapping[str, int]:
        return {**asdict(self.counts), "opened": self.opened}

    @property
    def shares_memory(self) -> bool:
        """Whether pictures now go through shared memory."""
        return self._memory is not None

    async def heal(self) -> None:
        async with self._probing:  # one probe at a time; who waited for another's shares its finding
            while not self._breaker.closed:
                await asyncio.sleep(max(0.0, self._breaker.probe_at - self._clock()))
                await self._probe()

    async def infer(self, images: Pixels) -> Predictions:
        client = self._client
        if client is None or not self._breaker.closed:
            raise BackendDown(self._breaker.why)
        if len(images) > self._max_batch_size:
            raise BackendError(f"{len(images)} pictures in one call; Triton takes {self._max_batch_size}")
        try:
            predictions = await self._ask_patiently(client, images)
        except TritonError as error:
            if error.kind is Kind.STUB_DEAD and client in (self._client, self._witnesses):
                self._stub_died.set()
            if client is not self._client:  # its connection was given up meanwhile; that says nothing of the new one
                raise BackendDown(str(error)) from None
            raise self._judge(error) from None
        except ContractError as error:
            self._open(str(error))
            raise BackendDown(str(error)) from None
        self._breaker.succeeded()
        # At once before the return: the caller checks the predictions against it.
        self._manifest = self._vetted[predictions.version]
        return predictions

    async def close(self) -> None:
        self._closed = True
        self._dismiss_witnesses()
        if self._memory is not None:
            memory, self._memory = self._memory, None
            await memory.close()
        self._open("the backend is closed")
        if self._watch is not None:
            self._watch.cancel()
        if self._dropped:
            await asyncio.wait(self._dropped)

    async def _ask_patiently(self, client: TritonClient, images: Pixels) -> Predictions:
        """`_ask`, and again while Triton's queue is full; a refused request has cost the model nothing."""
        for wait_s in FULL_QUEUE_WAITS_S:
            try:
                return await self._ask_watched(client, images)
            except TritonError as error:
                if error.kind is not Kind.FULL:
                    raise
                self.counts.refused += 1
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
        return await self._ask_watched(client, images)

    async def _ask_watched(self, client: TritonClient, images: Pixels) -> Predictions:
        self.counts.calls += 1
        self._progress.began(self._clock())
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(self._stall_s, self._look)
        answered = True
        try:
            return await self._ask(client, images, self._timeout_s, self._memory)
        except TritonError as error:
            answered = error.kind not in (Kind.TIMEOUT, Kind.UNREACHABLE)
            raise
        except asyncio.CancelledError:
            answered = False
            raise
        finally:
            self._progress.ended(self._clock(), answered=answered)

    def _look(self) -> None:
        """Whether Triton has gone silent; looks again while calls wait."""
        self._watch = None
        if not self._progress.waiting:
            return
        left_s = self._stall_s - self._progress.quiet_s(self._clock())
        if left_s > 0:
            self._watch = asyncio.get_running_loop().call_later(left_s, self._look)
        else:
            why = f"Triton at {self._url} has answered nothing for {self._stall_s:g} s"
            self._open(why, witness_s=WITNESS_S if self._has_stub else 0.0)

    async def _ask(
        self, client: TritonClient, images: Pixels, timeout_s: float, memory: SharedMemory | None = None
    ) -> Predictions:
        """One inference. Raises TritonError, or ContractError for a version that must not be believed."""
        try:
            reply = await (memory or client).infer(self._model.name, self._version, images, timeout_s)
        except NotShared as error:
            self._stop_sharing(memory, str(error))
            reply = await client.infer(self._model.name, self._version, images, timeout_s)
        if reply.version not in self._vetted:
            async with self._vetting:
                if reply.version not in self._vetted:
                    await self._vet(client, reply.version)
        return _predictions(reply)

    async def _vet(self, client: TritonClient, version: int) -> None:
        """Raises ContractError unless pictures prepared here are what this version expects."""
        config = await client.config(self._model.name, version, PROBE_S)
        folder = self._model / str(version)
        manifest = await asyncio.to_thread(Manifest.load, folder / contract.MANIFEST_FILE)
        for which, fingerprint in (("manifest", manifest.fingerprint), ("config in Triton", config.fingerprint)):
            if fingerprint != self._fingerprint:
                raise ContractError(
                    f"{folder} must not be served to this process, which prepares pictures for the preprocessing "
                    f"{self._fingerprint}; the version's {which} says {fingerprint or 'nothing'}. Load another with "
                    f"`clicv2 models load`, or start gateways and workers anew if this one is meant"
                )
        _check_tensors(config, manifest)
        self._has_stub = config.backend == "python"
        self._max_batch_size = config.max_batch_size
        self._vetted[version] = manifest

    def _judge(self, error: TritonError) -> BackendError:
        """What to tell the caller; opens the breaker where the next call would fail as well."""
        message = f"{error}{self._advice(error.kind)}"
        match error.kind:
            case Kind.BAD_REQUEST:
                return BackendError(message)
            case Kind.FULL:
                self.counts.refused += 1
                return BackendDown(message)
            case Kind.INTERNAL | Kind.TIMEOUT:
                self._open(message, fatal=False)
                down = error.kind is Kind.TIMEOUT or not self._breaker.closed
                return BackendDown(message) if down else BackendError(message)
            case _:
                self._open(message)
                return BackendDown(message)

    def _advice(self, kind: Kind) -> str:
        name = self._model.name
        match kind:
            case Kind.UNKNOWN:
                wanted = f" --version {self._version}" if self._version else ""
                return f"; load it with `clicv2 models load{wanted}`, or let Triton start with --load-model={name}"
            case Kind.NO_CONTROL:
                return "; start Triton with --model-control-mode=explicit, or start it again to revive the model"
            case _:
                return ""

    def _open(self, why: str, *, fatal: bool = True, witness_s: float = 0.0) -> None:
        was_closed = self._breaker.closed
        self._breaker.failed(why, self._clock(), fatal=fatal)
        if was_closed and not self._breaker.closed and not self._closed:
            log.error("Triton is given up: %s", why)
        if not self._breaker.closed:
            self._hang_up(witness_s)

    def _hang_up(self, witness_s: float) -> None:
        """End the calls that wait, or let them wait for so long; a probe has a new connection, in case it is a hole."""
        if self._client is not None:
            client, self._client = self._client, None
            if self._memory is not None:
                self._memory.drop()
                self._memory = None
            self._dismiss_witnesses()  # earlier ones
            self._dismissed = asyncio.Event()
            self._witnesses = client if witness_s else None
            self._later(_close(client, self._dismissed, witness_s))

    def _dismiss_witnesses(self) -> None:
        self._dismissed.set()
        self._witnesses = None

    def _later(self, closing: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._dropped.add(task)
        task.add_done_callback(self._dropped.discard)

    async def _probe(self) -> None:
        """Ask everything that readiness stands for on a new connection, and keep that if all is well."""
        client = TritonClient(self._url)
        memory: SharedMemory | None = None
        kept = False
        try:
            memory = await self._prove_or_revive(client)
            kept = not self._closed
            if self._closed:
                self._breaker.disproved("the backend is closed", self._clock())
        except (TritonError, ContractError, BadOutput) as error:
            kind = error.kind if isinstance(error, TritonError) else None
            why = f"{error}{self._advice(kind) if kind else ''}"
            if why != self._breaker.why:
                log.warning("Triton at %s is not ready: %s", self._url, why)
            self._breaker.disproved(why, self._clock())
        finally:
            self._stub_died.clear()
            if not kept:
                if memory is not None:
                    memory.drop()
                await client.close()
        if kept:
            self._dismiss_witnesses()
            self._client, self._memory = client, memory
            self._breaker.proved()
            way = "shared memory" if memory else "the wire"
            log.info("Triton at %s is ready with version %d, by %s", self._url, self._manifest.version, way)

    async def _prove_or_revive(self, client: TritonClient) -> SharedMemory | None:
        try:
            return await self._prove(client)
        except TritonError as error:
            if error.kind is not Kind.STUB_DEAD:
                raise
        await self._revive(client)
        return await self._prove(client)

    async def _prove(self, client: TritonClient) -> SharedMemory | None:
        """A look at config and manifest, then a picture: Triton's own `ready` says 200 for a model that is dead.

        Returns the memory through which the same picture had the same answer; None if there is none.
        """
        await client.live(LIVE_S)
        self._vetted.clear()  # what was believed of the versions before may no longer be so
        self.counts.probes += 1
        predictions = await self._ask_unless_dead(client)
        manifest = self._vetted[predictions.version]
        predictions.check_shapes(1, manifest)
        predictions.at(0)
        self._manifest = manifest
        return await self._prove_memory(client, predictions) if self._sharing != "off" else None

    async def _ask_unless_dead(self, client: TritonClient) -> Predictions:
        """Ask for the picture of our own, but not for long once a call that waited was told that nobody answers."""
        asking = asyncio.create_task(self._ask(client, self._picture, PROBE_S))
        dying = asyncio.create_task(self._stub_died.wait())
        try:
            if dying in (await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED))[0]:
                await asyncio.wait({asking}, timeout=CERTAIN_S)
            if asking.done():
                return asking.result()
            raise TritonError(Kind.STUB_DEAD, "as a call that waited was told, the model's process is gone")
        finally:
            asking.cancel()
            dying.cancel()

    async def _prove_memory(self, client: TritonClient, expected: Predictions) -> SharedMemory | None:
        """Shared memory that Triton has been seen to read. Nothing that is wrong with it is wrong with Triton."""
        memory = self._share(client)
        proved = False
        try:
            reply = await memory.infer(self._model.name, expected.version, self._picture, PROBE_S)
            proved = _same_picture(_predictions(reply), expected)
            why = "it reads other memory under the same name"
        except (NotShared, TritonError) as error:
            why = str(error)
        finally:
            if not proved:
                await memory.close()
        if proved:
            return memory
        self._by_wire(why)
        return None

    def _stop_sharing(self, memory: SharedMemory | None, why: str) -> None:
        if memory is not None and memory is self._memory:
            self._memory = None
            self._later(memory.close())
            self._by_wire(why)

    def _by_wire(self, why: str) -> None:
        if why != self._why_wire:
            level = logging.WARNING if self._sharing == "on" else logging.INFO
            log.log(level, "pictures go to Triton at %s by the wire, not through shared memory: %s", self._url, why)
        self._why_wire = why

    async def _revive(self, client: TritonClient) -> None:
        """Unload and load the model; Triton starts no new process for it by itself."""
        log.warning("the process behind Triton's model %s is dead; the model is loaded again", self._model.name)
        try:
            await Registry(client).reload(self._model.name)
        except TritonError as error:
            why = f"the model's process is dead, and could not be started again: {error}"
            raise TritonError(error.kind, why) from None
        self.counts.reloads += 1
        self._dismiss_witnesses()
        self._stub_died.clear()


async def _close(client: TritonClient, dismissed: asyncio.Event, witness_s: float) -> None:
    """Hang up, once its calls are dismissed or have waited for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(witness_s):
            await dismissed.wait()
    await client.close()


def _predictions(reply: Reply) -> Predictions:
    score, entropy, heatmap, embedding = (reply.outputs[name] for name in contract.OUTPUTS)
    return Predictions(reply.version, _column(score), _column(entropy), heatmap, embedding)


def _column(values: Float32) -> Float32:
    """Triton says [B, 1] where the contract says [B]; any other shape is left for `check_shapes` to refuse."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _same_picture(one: Predictions, other: Predictions) -> bool:
    """Whether these are answers to one picture: of noise and other noise, heatmaps differ by 2 somewhere."""
    return one.heatmap.shape == other.heatmap.shape and np.allclose(one.heatmap, other.heatmap, atol=0.1)


def _check_tensors(config: Config, manifest: Manifest) -> None:
    """Raises ContractError unless Triton's config has the tensors of the contract, in the manifest's shapes."""
    outputs = {name: Tensor("TYPE_FP32", dims) for name, dims in triton.output_dims(manifest).items()}
    inputs = {contract.INPUT: Tensor("TYPE_UINT8", triton.image_dims(manifest))}
    if config.inputs != inputs or not outputs.items() <= config.outputs.items() or config.max_batch_size < 1:
        raise ContractError(
            f"Triton's config of {manifest.name} has the tensors {dict(config.inputs)} -> {dict(config.outputs)} in "
            f"batches of {config.max_batch_size}, its manifest says {inputs} -> {outputs}; export it again"
        )


def _picture(manifest: Manifest) -> Pixels:
    """Noise, so that no part of the model is idle, and by chance, so that nobody has it: uint8 [1, H, W, 3]."""
    spec = manifest.preprocess
    return np.random.default_rng().integers(0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
