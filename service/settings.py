"""Configuration: one frozen object, and the only reader of the environment."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from clicv2.headers import Limits
from clicv2.imaging import DEFAULT_LIMITS

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


# What the service's own paths begin with, under which it cannot be put: it could not tell who asks for what.
OWN_PATHS = frozenset(
    {"docs", "errors", "livez", "metrics", "openapi.json", "readyz", "static", "static-offline-docs", "v1"}
)


def _root_path(path: str) -> str:
    """As it is, or ValueError."""
    segments = path.split("/")[1:]
    if path and not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", path):
        raise ValueError("it begins with a slash, ends without one, and is of letters, digits, `.`, `_`, `~` and `-`")
    if segments and segments[0] in OWN_PATHS:
        raise ValueError(f"/{segments[0]} is a path of the service's own")
    return path


def _proxies(addresses: str) -> str:
    """As it is, or ValueError."""
    for each in _listed(addresses):
        if ip_network(each).prefixlen == 0:
            raise ValueError(f"{each} is everybody, who could then say to be anybody: name the proxy's network")
    return addresses


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def usable_cores() -> int:
    """Cores that this process may run on, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nearest_models() -> Path:
    """The repository of the folder where one is, or else that of the checkout whose code this is."""
    here, checkout = Path("model_repository"), Path(__file__).parents[1] / "model_repository"
    return checkout if checkout.is_dir() and not here.is_dir() else here


class Settings(BaseSettings):
    """Read from the environment: `HOST` and `PORT`, the rest as `CLICV2_` and the field's name in capitals.

    Each description says why the default is what it is.
    """

    model_config = SettingsConfigDict(
        env_prefix="CLICV2_", frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=()
    )

    host: str = Field(
        "127.0.0.1",
        validation_alias="HOST",
        description="Address to listen on. The loopback: nobody is exposed without having chosen it.",
    )
    port: int = Field(
        8000,
        ge=0,
        le=65_535,
        validation_alias="PORT",
        description="Port to listen on; 0 takes a free one. 8000 is what uvicorn's users expect.",
    )
    root_path: Annotated[str, AfterValidator(_root_path)] = Field(
        "",
        description="The path under which a proxy offers the service on a host that is not its own, as /complexity; it "
        "may cut it off or not. Links, `Location` and /docs then have it. None: a name of its own needs none.",
    )
    trusted_proxies: Annotated[str, AfterValidator(_proxies)] = Field(
        "",
        description="Addresses and networks of the proxies in front, with commas between, as 127.0.0.1,10.2.0.0/16: "
        "what they say by X-Forwarded-For of the caller's address is believed, and by X-Forwarded-Proto. None, not "
        "even this machine's own: whoever is believed can be anybody, and a proxy that does not set the header passes "
        "on what its callers sent.",
    )
    log_format: Literal["json", "console", "auto"] = Field(
        "auto", description="How a line of the log looks. Auto: columns for people on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="The least that is logged. What libraries say at debug never is: it may hold parts of pictures.",
    )
    access_log: bool = Field(
        False, description="Log a line for each request. Off: /metrics counts them, and a line costs 0.1 ms of CPU."
    )
    otlp_endpoint: str | None = Field(
        None,
        repr=False,  # it may hold a password
        description="http://host:port of a collector of traces, which takes OTLP over HTTP (extra `otel`). None: "
        "nothing is traced, and nothing of it imported.",
    )
    otlp_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="How many of the requests are traced; one that comes with a W3C traceparent is if that says so. "
        "All: a trace costs 0.3 ms of CPU, and whoever turns it on wants to see his own.",
    )

    auth: Literal["on", "off"] | None = Field(
        None,
        description="Whether callers need an API key. None: not on the loopback, where nobody else is; at any other "
        "HOST the gateway does not start until somebody has decided.",
    )
    keys_file: Path = Field(
        Path("keys.json"),
        description="Hashes of the API keys: `clicv2 keys` writes them, gateways read them again within a second of a "
        "change. Mount the folder, not the file, which is replaced as a whole.",
    )
    anonymous_rate: str | None = Field(
        None,
        pattern=r"^[1-9]\d{0,9}/(second|minute|hour|day)$",
        description="Requests of each address, of IPv6 each /64, where callers need no key, e.g. 10/second. None: "
        "behind a proxy all callers have one address, its own, until CLICV2_TRUSTED_PROXIES names it; and what is too "
        "much for the gateway is shed anyway.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call the service from a browser, with commas between. None: a page of "
        "somebody else must not use what a visitor can reach.",
    )

    model_repository: Path = Field(
        default_factory=nearest_models,
        description="Folder NAME/VERSION/model.onnx, as Triton reads it. Where there is none, the checkout's own, "
        "which ships a model: `clicv2 score` is at home in any folder.",
    )
    model: str = Field("clicv2", pattern=r"^[\w.-]+$", description="Name of the model to serve. There is one.")
    model_version: Count | None = Field(
        None, description="Version to serve. None: the highest, so a newly exported one is served after a restart."
    )

    max_upload_bytes: Count = Field(
        DEFAULT_LIMITS.max_bytes, description="Byte cap of a picture; 32 MiB holds the JPEGs of any camera."
    )
    max_pixels: Count = Field(
        DEFAULT_LIMITS.max_pixels, description="Width x height; 50 million is a phone's largest mode, 150 MB decoded."
    )
    max_side: Count = Field(
        DEFAULT_LIMITS.max_side, description="Longest side in pixels; a sliver of 1 x 50 million is no picture."
    )
    max_frames: Count = Field(
        DEFAULT_LIMITS.max_frames, description="Frames of an animation; one is scored, but each costs a header."
    )

    max_segments: Count = Field(
        DEFAULT_LIMITS.max_segments,
        description="Segments of a JPEG's header, chunks of a PNG or WebP; a PNG of 32 MiB in 8 KiB chunks has 4,096.",
    )
    max_scans: Count = Field(
        DEFAULT_LIMITS.max_scans,
        description="Passes of a progressive JPEG over its pixels: encoders write 10 to 20, each can cost 40 ms.",
    )

    url_input: bool = Field(
        False,
        description="Take pictures by URL. Off: the service then makes requests to hosts that its callers choose.",
    )
    url_ports: tuple[int, ...] = Field(
        (80, 443),
        description="Ports that a URL may name, as [80, 443]. Those of the web; others would make us a port scanner.",
    )
    url_denied_networks: tuple[str, ...] = Field(
        (),
        description="Networks that URLs must not lead to although their addresses are public: one's own, as "
        '["203.0.113.0/24"]. Private ones are refused anyway.',
    )
    max_fetches: Count = Field(
        32,
        description="Pictures on their way from URLs at once, each at most CLICV2_MAX_UPLOAD_BYTES in memory; more are "
        "shed with 429.",
    )

    bulk_max_items: Count = Field(
        256, description="Pictures in a batch. Its answer as JSON is held in memory: with maps at most 67 MB."
    )
    bulk_max_bytes: Count = Field(
        128 << 20,
        description="Bytes of a batch, as sent and, in an archive, as decompressed. A zip is held in memory whole.",
    )
    bulk_deadline_s: Seconds = Field(
        60.0,
        description="From a batch's first byte to its last answer: 256 pictures took 10 s on a core shared with "
        "others, the rest is for the upload.",
    )
    bulk_lanes: Count = Field(
        8, description="Pictures of one batch inside at once: enough to fill a worker, few of what is let in."
    )
    bulk_at_once: Count = Field(
        4, description="Batches inside at once, and as many comparisons; more are shed with 429. Each may hold a zip."
    )
    bulk_max_compared: int = Field(8, ge=2, description="Pictures in a comparison: 28 pairs, each with a map.")

    job_max_items: Count = Field(
        1000, description="Pictures in a job. Its uploads and results are held, its answers come by page."
    )
    job_max_bytes: Count = Field(
        128 << 20,
        description="Bytes of a job's body, as sent and, in an archive, as decompressed. A zip is held whole.",
    )
    job_upload_s: Seconds = Field(
        300.0, description="From a job's first byte to its last: 128 MiB take as long at 3.6 Mbit/s."
    )
    job_uploads: Count = Field(
        4, description="Bodies of jobs on their way at once; more are shed with 429. Each may hold a zip."
    )
    job_ttl_s: Seconds = Field(
        3600.0,
        description="How long an ended job and its results are known; one that has not ended after as long ends as "
        "`expired`. An hour: whoever waits for it comes soon, and all share CLICV2_JOBS_HELD_BYTES.",
    )
    jobs_open: Count = Field(
        64, description="Jobs that have not ended, of all gateways together; more are shed with 429."
    )
    jobs_held_bytes: Count = Field(
        256 << 20,
        description="Pictures that wait and results that are kept, of all jobs together, in memory or as part of "
        "Redis's `maxmemory`; what is over it is shed with 429. Each picture is counted with room for its result.",
    )
    jobs_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6,
        description="The part of CLICV2_JOBS_OPEN, CLICV2_JOBS_HELD_BYTES, CLICV2_JOB_UPLOADS and CLICV2_EVENT_STREAMS "
        "that one API key may take; what is over it is shed with 429. Not all, for nobody keeps the others out; more "
        "than half, so that the largest body fits.",
    )
    job_lease_s: Seconds = Field(
        5.0,
        description="A gateway's right to drive a job, renewed at a third of it: another one goes on with a dead "
        "gateway's jobs within 6 s. Nobody waits for a job as for a picture, so a slow moment need not move it.",
    )
    jobs_driven: Count = Field(2, description="Jobs that a gateway drives at once: a short one passes a long one.")
    job_lanes: Count = Field(
        2,
        description="Pictures of one job inside at once: with two jobs four, which a caller who waits has before him "
        "in the queue at most. One while the gateway is more than half full.",
    )
    job_slice_s: Seconds = Field(
        10.0, description="After so long a job gives way to one that nobody drives, and comes after the others again."
    )
    job_max_page: Count = Field(256, description="Results in an answer; with maps at most 67 MB of JSON.")
    event_streams: Count = Field(
        64,
        description="Streams of jobs' events at once in this process; more are shed with 429. Each asks Redis "
        "twice a second.",
    )
    event_heartbeat_s: Seconds = Field(
        15.0,
        description="A stream that has nothing to say sends a comment: proxies close what is silent for 30 to 60 s.",
    )
    webhook_secret: str | None = Field(
        None,
        repr=False,
        description="`whsec_` and 24 to 64 random bytes in base64, with which webhooks are signed (Standard Webhooks). "
        "Two with a space between while one replaces the other: receivers may know either. None: none are sent, for "
        "nobody could tell them from a stranger's.",
    )
    webhook_timeout_s: Seconds = Field(
        15.0, description="Longest wait for a webhook's receiver: what Standard Webhooks has at least."
    )
    webhook_attempts: Count = Field(
        6, description="Deliveries of a webhook until it has failed: with pauses of 5 s to 15 minutes, half an hour."
    )

    max_in_flight: Count = Field(
        128,
        description="Pictures between a complete upload and its answer in this process; more are shed with 429. At 100 "
        "a second and two cores the last one waits about 1.3 s: well within the deadline, so admitting pays.",
    )
    deadline_s: Seconds = Field(
        10.0, description="From a request's first byte to its answer. People give up on a page after about ten seconds."
    )
    lease_s: Seconds = Field(
        1.5, description="A worker's right to a job, renewed at a third of it: a dead worker's jobs move on within 2 s."
    )
    max_attempts: Count = Field(
        3, description="Leases a job may have. Its third worker in a row to die is taken to die of the job."
    )

    redis_url: str | None = Field(
        None,
        repr=False,  # it may hold a password
        description="redis://[[user]:password@]host[:port][/database] of the queue that gateways and workers share. "
        "None: a queue in memory and a worker in this process, which is all that one machine needs.",
    )
    redis_timeout_s: Seconds = Field(
        0.2, description="Longest wait for Redis, which takes 0.1 ms: a caller is told within 250 ms that it is down."
    )
    queue_name: str = Field(
        "clicv2",
        pattern=r"^[\w.-]+$",
        description="First part of every key in Redis. Two services may share one Redis.",
    )
    idempotency_ttl_s: Seconds = Field(
        600.0,
        description="How long an Idempotency-Key is remembered; a retry comes within minutes. At 1,000 a second that "
        "is 90 MB in Redis.",
    )
    queue_capacity: Count = Field(
        1024,
        description="Jobs in Redis, of all gateways together; more are shed with 429. Each holds its pixels, 0.4 MB.",
    )
    result_ttl_s: float = Field(
        60.0,
        ge=0,
        description="How long Redis keeps an answer, 3.4 kB, for a caller who asks again. A minute is longer than any "
        "retry; at 1,000 answers a second it is 200 MB.",
    )
    dead_letters: int = Field(
        100, ge=0, description="Jobs set aside after their last attempt, to be examined; each holds its pixels, 0.4 MB."
    )

    cache_bytes: int = Field(
        0,
        ge=0,
        description="Memory for results that are kept, here or in Redis for all gateways together; 64 MiB hold 29,000 "
        "pictures, in Redis as part of `maxmemory`. None: whoever has a picture would learn that it was scored before.",
    )
    cache_ttl_s: Seconds = Field(
        3600.0,
        description="How long a result is kept. It stays true for as long as its model version answers; an hour "
        "bounds how long a new version may go unnoticed by a gateway of which nobody asks whether it is ready.",
    )

    triton_url: str | None = Field(
        None, description="host:port of Triton's gRPC. None: ONNX Runtime in this process, which needs no other server."
    )
    triton_calls: Count = Field(
        4, description="Batches on their way to Triton at once: one is computed, the others keep it from waiting."
    )
    triton_shared_memory: Literal["on", "off", "auto"] = Field(
        "auto",
        description="Whether pictures go to Triton through shared memory. Auto: where Triton reads it, which is tried "
        "at each connection and makes a call up to 0.8 ms of CPU cheaper; else by the wire. On: warn where it cannot.",
    )
    backend_timeout_s: Seconds = Field(
        5.0, description="Longest wait for a batch while others are answered; well within a request's deadline."
    )
    backend_stall_s: Seconds = Field(
        0.9,
        description="Triton is taken to be down when it has answered nothing for so long: promised is within a second. "
        "Must be above what a whole batch takes, so raise it with `max_batch_size` on a CPU.",
    )

    max_batch_size: Count = Field(
        1,
        description="Jobs in one call of the backend. One: on a CPU the shipped model takes a sixth longer for each of "
        "eight together than for one alone, for they no longer fit the cache. A GPU wants 16 and more.",
    )
    max_batch_delay_s: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Longest wait to fill a batch while another batch runs. None on a CPU: an idle core is worth more.",
    )
    threads: Count = Field(
        default_factory=usable_cores,
        description="Threads that decode, and as many calls of the backend at once. One a core: both are pure CPU.",
    )

    keep_alive_s: Count = Field(
        75,
        description="How long a connection without requests stays open. Longer than whoever is in front keeps his "
        "(nginx and most balancers 60 s): what he sends just when it is closed here, he has to answer with 502.",
    )
    ready_for_s: Seconds = Field(
        1.0, description="How long an answer proves readiness: promised is a 503 within a second of the last answer."
    )
    ready_deadline_s: Seconds = Field(
        2.0, description="Deadline of the probe behind /readyz. Kubernetes asks with 1 s by default, most others more."
    )
    drain_notice_s: float = Field(
        0.5,
        ge=0,
        description="After SIGTERM, how long to keep saying 503 before the port closes: a balancer's chance to look.",
    )
    drain_timeout_s: Seconds = Field(
        15.0, description="After SIGTERM, the longest wait for what is in flight; below the 20 s promised for an exit."
    )

    @property
    def origins(self) -> tuple[str, ...]:
        return _listed(self.cors_origins)

    @property
    def proxies(self) -> tuple[str, ...]:
        return _listed(self.trusted_proxies)

    @property
    def limits(self) -> Limits:
        return Limits(
            max_bytes=self.max_upload_bytes,
            max_pixels=self.max_pixels,
            max_side=self.max_side,
            max_frames=self.max_frames,
            max_segments=self.max_segments,
            max_scans=self.max_scans,
        )


def variables() -> frozenset[str]:
    """The names of all variables of the environment, settings or not."""
    return frozenset(os.environ)
