"""What `clicv2 check` looks at: each check tries the thing itself, and says what to do where it fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from clicv2 import contract, imaging
from clicv2.contract import Float32, ModelVersion
from clicv2.errors import ContractError, ImageError
from clicv2.imaging import Pixels
from clicv2.spec import PreprocessSpec
from service import keys
from service.app import build
from service.backend.protocol import Backend, BackendError
from service.cache.results import CacheUse
from service.errors import ServiceError, Unavailable
from service.keys import KeysError
from service.prediction import BadOutput, Prediction
from service.scoring import Scored, Scorer
from service.settings import Settings

if TYPE_CHECKING:  # installed only where it is used
    from redis.asyncio import Redis

# Waits for what should be there: longer than the service's own, so that slow is told from gone.
PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.1
_OLDEST_REDIS = (6, 2)
# What a lossy format may do to the golden picture, of 255 levels in the mean: measured 5.
_LOSS = 12.0
# Between the score and what the heatmap's cells come to; what a GPU rounds to (TF32) is less apart.
_CLOSE = 2e-3


class Wrong(Exception):
    """What is wrong, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what.rstrip('.')}. {remedy}")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at.

    Attributes:
        name: what it is.
        look: says what was found. Raises Wrong.
        needs: others without which it is not tried, for it would only fail for the same reason, and take its time.
    """

    name: str
    look: Callable[[], Awaitable[str]]
    needs: frozenset[str] = frozenset()


def checks(settings: Settings) -> list[Check]:
    """What these settings make use of, and nothing else."""
    found = [
        Check("access", partial(_access, settings)),
        Check("decoders", _decoders),
        Check("model", partial(_model, settings)),
    ]
    if settings.redis_url:
        found.append(Check("redis", partial(_redis, settings, settings.redis_url)))
    if settings.triton_url:
        found.append(Check("triton", partial(_triton, settings, settings.triton_url)))
    else:
        found.append(Check("onnxruntime", partial(_onnxruntime, settings)))
    needs = frozenset(each.name for each in found) - {"access"}
    return [*found, Check("a picture", partial(_road, settings), needs)]


async def _access(settings: Settings) -> str:
    try:
        guarded = keys.wanted(settings.auth, settings.host)
    except ValueError as error:
        raise Wrong("the gateway does not start", str(error)[0].upper() + str(error)[1:]) from None
    if not guarded:
        return f"callers at {settings.host or 'all addresses'} need no key"
    try:
        known = keys.read(settings.keys_file)
    except KeysError as error:
        raise Wrong(str(error), "Mend it, or let CLICV2_KEYS_FILE name another") from None
    if not known:
        raise Wrong(
            f"callers need a key, and {settings.keys_file} holds none", "Make one: clicv2 keys create --name NAME"
        )
    return f"callers need one of the {len(known)} keys in {settings.keys_file}"


async def _decoders() -> str:
    """Every format decodes, and to the same picture."""
    picture = golden_picture()
    for form in imaging.FORMATS:
        try:
            decoded = imaging.decode(encoded(picture, form), PreprocessSpec())
        except (ImageError, ImportError, OSError, KeyError) as error:
            raise Wrong(f"{form} cannot be decoded: {error}", "Install pillow and simplejpeg anew") from error
        off = np.abs(np.asarray(decoded.image, np.float32) - picture).mean()
        if off > _LOSS:
            raise Wrong(f"{form} decodes to another picture", "Install pillow and simplejpeg anew")
    return f"{', '.join(imaging.FORMATS)}; pillow {_version('pillow')}, simplejpeg {_version('simplejpeg')}"


async def _model(settings: Settings) -> str:
    manifest = _open(settings).manifest
    return (
        f"{manifest.name}:{manifest.version}, {manifest.method}, sha256 {manifest.sha256[:12]} as its manifest says, "
        f"preprocessing {manifest.fingerprint}"
    )


async def _onnxruntime(settings: Settings) -> str:
    try:
        from service.backend.onnx import OnnxBackend
    except ImportError as error:
        if settings.redis_url:
            return "not installed: this machine can be a gateway, and no worker"
        raise Wrong(f"it cannot be imported: {error}", "In the repository's folder: pip install '.[serve]'") from error
    opened = _open(settings)
    try:
        backend = OnnxBackend(opened, threads=1)
    except ContractError as error:
        raise Wrong(str(error), "Install onnxruntime anew, or export the model again") from error
    return f"onnxruntime {_version('onnxruntime')}, {await _infer(backend)}"


async def _redis(settings: Settings, url: str) -> str:
    where = _host(url)
    try:
        from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
    except ImportError:
        raise Wrong("redis is not installed", "In the repository's folder: pip install '.[redis]'") from None
    try:
        async with asyncio.timeout(PATIENCE_S), _connected(url) as client:
            started = time.monotonic()
            await client.ping()
            took_s = time.monotonic() - started
            info = {str(name): str(value) for name, value in (await client.info("everything")).items()}
    except ValueError as error:
        raise Wrong(f"CLICV2_REDIS_URL is none: {error}", "It is redis://[[user]:password@]host[:port]") from None
    except TimeoutError:
        raise Wrong(
            f"{where} does not answer within {PATIENCE_S:g} s", "Is it overloaded, or its port closed?"
        ) from None
    except (AuthenticationError, NoPermissionError) as error:
        raise Wrong(
            f"{where}: {error}", "Put a user who may do everything, and the password, into CLICV2_REDIS_URL"
        ) from None
    except (RedisError, OSError) as error:
        raise Wrong(f"{where}: {error}", "Start it, or put CLICV2_REDIS_URL right") from None
    _judge_redis(info, where)
    if took_s > settings.redis_timeout_s:
        raise Wrong(
            f"{where} takes {took_s:.2f} s to answer a ping", "The service waits for CLICV2_REDIS_TIMEOUT_S: raise it"
        )
    return f"{where}, version {info['redis_version']}, ping {1e3 * took_s:.1f} ms"


def _judge_redis(info: dict[str, str], where: str) -> None:
    """Raises Wrong for a Redis that would lose jobs, or takes none."""
    if tuple(int(part) for part in info["redis_version"].split(".")[:2]) < _OLDEST_REDIS:
        raise Wrong(f"{where} is Redis {info['redis_version']}", "It has to be 6.2 or newer")
    if info.get("role", "master") != "master":
        raise Wrong(f"{where} is a replica", "Let CLICV2_REDIS_URL name the primary")
    losses = {}
    if info.get("aof_enabled", "1") != "1":
        losses["keeps nothing when it is killed"] = "--appendonly yes"
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        losses[f"throws jobs away when it is full ({policy})"] = "--maxmemory-policy noeviction"
    if losses:
        raise Wrong(f"{where} {', and '.join(losses)}", f"Start it with {' '.join(losses.values())}")


async def _triton(settings: Settings, url: str) -> str:
    try:
        from service.backend.triton import TritonBackend
    except ImportError as error:
        raise Wrong(
            f"its client cannot be imported: {error}", "In the repository's folder: pip install '.[triton]'"
        ) from error
    _open(settings)
    backend = TritonBackend(
        url,
        settings.model_repository / settings.model,
        version=settings.model_version,
        timeout_s=PATIENCE_S,
        stall_s=PATIENCE_S,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await backend.heal()
    except TimeoutError:
        try:
            await _infer(backend)  # says why
        finally:
            await backend.close()
    return f"{url}, {await _infer(backend)}"


async def _road(settings: Settings) -> str:
    """The whole road of an upload: decoder, queue, worker, model."""
    try:
        service = build(settings)
    except (ContractError, ValueError, ImportError) as error:
        raise Wrong(f"the service cannot be put together: {error}", "Put that right") from error
    async with service.running():
        try:
            scored = await _score(service.scorer, settings)
        except ServiceError as error:
            remedy = (
                "Are workers running? clicv2 worker"
                if settings.redis_url
                else "Try it with clicv2 serve, and see its log"
            )
            raise Wrong(f"it got no answer: {error}", remedy) from error
        workers = (await service.queue.census()).workers if settings.redis_url else None
    _judge(scored.prediction)
    by = f", {workers} workers ready" if workers is not None else ""
    took_s = scored.decode_s + scored.queue_s + scored.inference_s
    model = f"{scored.manifest.name}:{scored.manifest.version}"
    return f"scored {scored.prediction.score:.3f} by {model} in {1e3 * took_s:.0f} ms{by}"


async def _score(scorer: Scorer, settings: Settings) -> Scored:
    """Score the golden picture as if a caller had sent it; who has just started is given time to become ready."""
    data = encoded(golden_picture(), "PNG")
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            deadline = time.monotonic() + settings.deadline_s
            return await scorer.score(data, deadline, use=CacheUse(find=False, keep=False))
        except Unavailable:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_LOOK_EVERY_S)


def _open(settings: Settings) -> ModelVersion:
    try:
        return contract.open_version(settings.model_repository / settings.model, settings.model_version)
    except ContractError as error:
        raise Wrong(
            str(error), "Copy the model anew, or export it; CLICV2_MODEL_REPOSITORY says where it is looked for"
        ) from error


async def _infer(backend: Backend) -> str:
    """Score the golden picture, and close. Raises Wrong."""
    spec = backend.manifest.preprocess
    pixels = np.asarray(Image.fromarray(golden_picture()).resize((spec.width, spec.height)), np.uint8)
    started = time.monotonic()
    try:
        predictions = await backend.infer(pixels[None])
        predictions.check_shapes(1, backend.manifest)
        _judge(predictions.at(0))
    except (BackendError, BadOutput) as error:
        raise Wrong(str(error), "Start it, load the model, or export that again") from error
    finally:
        await backend.close()
    return f"the golden picture in {1e3 * (time.monotonic() - started):.0f} ms"


def _judge(prediction: Prediction) -> None:
    """Raises Wrong unless the heatmap explains the score: a runtime that computes nonsense answers promptly."""
    mean: Float32 = np.asarray(prediction.heatmap.mean(), np.float32)
    explained = float(contract.local_score(mean))
    if abs(explained - prediction.score) > _CLOSE:
        raise Wrong(
            f"the model says {prediction.score:.4f} and its heatmap {explained:.4f}, which should be the same",
            "Is its runtime broken, or did something else export it?",
        )


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator["Redis"]:
    from redis.asyncio import Redis

    from service.queue.connections import Pool

    client = Redis.from_pool(Pool.from_url(url, socket_connect_timeout=PATIENCE_S))
    try:
        yield client
    finally:
        await client.aclose()


def golden_picture() -> Pixels:
    """Smooth on the left and busy on the right, so that no part of a model is idle: uint8 [192, 256, 3]."""
    rows, columns = np.mgrid[0:192, 0:256]
    busy = np.random.default_rng(0).integers(0, 256, (24, 32)).repeat(8, axis=0).repeat(8, axis=1)
    levels = np.where(columns < 128, columns, busy).astype(np.uint8)
    return np.stack([levels, levels, (rows // 2 + 64).astype(np.uint8)], axis=2)


def encoded(picture: Pixels, form: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, form, quality=95)
    return buffer.getvalue()


def _host(url: str) -> str:
    """Without the password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.hostname and parts.port else parts.hostname or parts.path


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
