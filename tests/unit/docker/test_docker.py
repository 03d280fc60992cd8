"""The Dockerfiles and compose files keep their rules; `make test-compose` builds and runs them."""

import re
import shlex
import subprocess
import sys
import time
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from clicv2 import contract
from service.keys import KeyFile
from service.server import UPLOADS_S
from service.settings import Settings

ROOT = Path(__file__).parents[3]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
VARIABLES = {field.validation_alias or f"CLICV2_{name.upper()}" for name, field in Settings.model_fields.items()}


class Loader(yaml.SafeLoader):
    """YAML with compose's own tags, which say how to merge; the value stays."""


Loader.add_constructor("!reset", lambda *_: None)
Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def compose(path: str) -> dict[str, dict[str, dict[str, object]]]:
    loaded = yaml.load((ROOT / path).read_text(), Loader)  # noqa: S506  # a SafeLoader with two tags more
    assert isinstance(loaded, dict)
    return loaded


SERVICES = compose("docker-compose.yml")["services"]
# Those of a plain `up`; the others are what watches them, and commands that people run beside them.
PLAIN = {name: service for name, service in SERVICES.items() if "profiles" not in service}
COMMANDS = {"keys", "metrics-key"}
OURS = {name for name, service in SERVICES.items() if str(service["image"]).startswith("clicv2-")}
OVERLAY = compose("docker/compose.gpu.yml")["services"]


def steps(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions with their arguments, continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0].upper(), line.split(maxsplit=1)[1]) for line in joined.splitlines() if line]


def is_pinned(image: str) -> bool:
    """By digest, or by a tag that starts with a version or is given by who runs it."""
    return bool(re.search(r"@sha256:[0-9a-f]{64}$|:(v?\d+[\w.-]*|\$\{TAG:-local\})$", image))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
class TestDockerfile:
    def test_its_bases_are_pinned(self, dockerfile: Path) -> None:
        images = [arguments.split()[0] for step, arguments in steps(dockerfile) if step == "FROM"]
        assert images
        assert all(map(is_pinned, images))

    def test_it_ends_as_a_numbered_user(self, dockerfile: Path) -> None:
        """By number, for Kubernetes cannot tell of a name whether it is root."""
        last_stage = steps(dockerfile)[max(i for i, (step, _) in enumerate(steps(dockerfile)) if step == "FROM") :]
        users = [arguments for step, arguments in last_stage if step == "USER"]
        assert users
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])

    def test_it_needs_no_syntax_from_a_registry(self, dockerfile: Path) -> None:
        assert not re.search(r"^#\s*syntax\s*=", dockerfile.read_text(), re.MULTILINE | re.IGNORECASE)

    def test_it_takes_no_secret_and_nothing_from_a_url(self, dockerfile: Path) -> None:
        for step, arguments in steps(dockerfile):
            assert step != "ADD"
            assert "type=secret" not in arguments
            if step in ("ARG", "ENV"):
                assert not re.search(r"(?i)password|secret|token|_key\b|index_url", arguments)

    def test_what_it_copies_is_there_and_not_ignored(self, dockerfile: Path) -> None:
        allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        for step, arguments in steps(dockerfile):
            if step == "COPY" and "--from=" not in arguments:
                for source in shlex.split(arguments)[:-1]:
                    assert (ROOT / source).exists(), source
                    assert any(fnmatch(source, entry) for entry in allowed), source


def test_the_build_context_is_closed_but_for_exceptions() -> None:
    entries = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert entries[0] == "*"


def test_the_stub_is_for_the_python_of_the_image() -> None:
    text = (ROOT / "docker/triton-cpu.Dockerfile").read_text()
    [stub] = set(re.findall(r"python_backend_stubs/(\d\.\d+)/", text))
    assert set(re.findall(r"^FROM python:(\d\.\d+)-", text, re.MULTILINE)) == {stub}


@pytest.mark.parametrize("name", SERVICES)
class TestService:
    def test_it_can_write_and_become_nothing(self, name: str) -> None:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service["user"]))
        assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & service.keys()
        assert service.get("network_mode", "none") == "none"
        assert "docker.sock" not in str(service)

    def test_its_health_is_checked_and_it_comes_back(self, name: str) -> None:
        if name in COMMANDS:
            assert SERVICES[name]["restart"] == "no"
            return
        check = SERVICES[name].get("healthcheck")
        if name == "redis-exporter":
            # Its image has nothing to check with; an alert tells when it is gone. To disable the check would be a
            # check that never passes for `up --wait`.
            assert check is None
        else:
            assert isinstance(check, dict)
            assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert SERVICES[name]["restart"] == "unless-stopped"

    def test_its_image_is_pinned(self, name: str) -> None:
        assert is_pinned(str(SERVICES[name]["image"]))

    def test_it_is_reached_from_this_machine_only(self, name: str) -> None:
        ports = SERVICES[name].get("ports", [])
        assert isinstance(ports, list)
        assert all(str(port).startswith("127.0.0.1:") for port in ports)
        assert bool(ports) == (name in ("gateway", "grafana"))

    def test_it_waits_for_health_not_for_a_start(self, name: str) -> None:
        needed = SERVICES[name].get("depends_on", {})
        assert isinstance(needed, dict)
        for other, how in needed.items():
            ended = "completed_successfully" if other in COMMANDS else "healthy"
            assert how == {"condition": f"service_{ended}"}

    def test_its_settings_exist(self, name: str) -> None:
        environment = SERVICES[name].get("environment", {})
        assert isinstance(environment, dict)
        if name in OURS:
            assert environment.keys() <= VARIABLES

    def test_only_a_gpu_may_lock_memory(self, name: str) -> None:
        assert "ulimits" not in SERVICES[name]


def test_callers_need_a_key_unless_somebody_says_otherwise() -> None:
    assert "'CLICV2_AUTH': '${CLICV2_AUTH:-on}'" in str(SERVICES["gateway"]["environment"])
    assert "keys:/keys:ro" in str(SERVICES["gateway"]["volumes"])  # it reads them, it makes none


def test_health_is_readiness() -> None:
    for name in ("gateway", "worker"):
        assert "/readyz" in str(SERVICES[name]["healthcheck"])


def test_a_drain_is_never_cut_short() -> None:
    longest = Settings.model_fields["drain_timeout_s"].default + UPLOADS_S
    for name in ("gateway", "worker"):
        assert int(str(SERVICES[name]["stop_grace_period"]).removesuffix("s")) > longest


def test_only_the_gateway_has_a_network_that_leads_outside() -> None:
    assert {name for name, service in PLAIN.items() if "front" in str(service["networks"])} == {"gateway"}
    assert compose("docker-compose.yml")["networks"]["back"] == {"internal": True}


def test_what_watches_is_asked_for_and_stays_apart() -> None:
    """Whoever gets into Grafana, which is reached from outside, gets no further."""
    watching = {name: service for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]}
    assert watching.keys() == {"metrics-key", "prometheus", "alertmanager", "grafana", "redis-exporter"}
    networks = {
        name: set(str(service.get("networks", "")).strip("[]").replace("'", "").split(", "))
        for name, service in watching.items()
    }
    for name in ("grafana", "alertmanager"):
        assert networks[name] == {"watch", "front"}
    assert networks["prometheus"] == {"back", "watch"}
    assert networks["redis-exporter"] == {"back"}
    assert compose("docker-compose.yml")["networks"]["watch"] == {"internal": True}


def test_grafana_has_no_password_that_everybody_knows() -> None:
    grafana = SERVICES["grafana"]
    assert "'GF_SECURITY_ADMIN_PASSWORD': '${GRAFANA_PASSWORD:-}'" in str(grafana["environment"])
    shell, flag, script = grafana["entrypoint"]  # type: ignore[misc]
    for password, status in (("", 64), ("chosen", 0)):
        ran = script.replace("$$", "$").replace("sleep 10", "true").replace("exec /run.sh", "exit 0")
        assert (
            subprocess.run([shell, flag, ran], env={"GF_SECURITY_ADMIN_PASSWORD": password}, check=False).returncode
            == status
        )


def test_the_key_of_prometheus_is_made_once(tmp_path: Path) -> None:
    shell, flag, script = SERVICES["metrics-key"]["entrypoint"]  # type: ignore[misc]
    environment = {
        "CLICV2_KEYS_FILE": str(tmp_path / "keys.json"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    made = set()
    for _ in range(2):
        subprocess.run([shell, flag, script.replace("/keys/", f"{tmp_path}/")], env=environment, check=True)
        made.add((tmp_path / "prometheus.key").read_text())
    [key] = made
    known = KeyFile(tmp_path / "keys.json", time.monotonic, lambda: None)
    found = known.find(key.strip())
    assert found is not None
    assert found.scope == "admin"
    assert len(known) == 1


def test_the_gpu_overlay_swaps_triton() -> None:
    triton = OVERLAY["triton"]
    assert triton["build"] is None  # reset: the image is NVIDIA's
    assert re.fullmatch(r"nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3", str(triton["image"]))
    assert "--model-config-name" not in str(triton["command"])
    assert "'capabilities': ['gpu']" in str(triton["deploy"])
    assert not {"read_only", "cap_drop", "security_opt"} & triton.keys()  # which it would loosen
    environment = OVERLAY["worker"]["environment"]
    assert isinstance(environment, dict)
    assert environment.keys() <= VARIABLES


def test_worker_and_triton_share_memory_and_nothing_else() -> None:
    """A volume, so that each may restart without the other."""
    shared = {name for name, service in SERVICES.items() if "shm:/dev/shm" in str(service.get("volumes"))}
    assert shared == {"worker", "triton"}
    options = compose("docker-compose.yml")["volumes"]["shm"]["driver_opts"]
    assert isinstance(options, dict)
    assert options["type"] == "tmpfs"
    assert {"mode=1777", "noexec", "nosuid", "nodev"} <= set(options["o"].split(","))
    for services in (SERVICES, OVERLAY):
        assert services["worker"]["user"] == services["triton"]["user"], "neither could open what is the other's"
        assert not any("shm_size" in service for service in services.values()), "the volume has a size of its own"


def test_redis_keeps_what_was_admitted() -> None:
    lines = [line.split() for line in (ROOT / "docker/redis.conf").read_text().splitlines()]
    settings = {line[0]: line[1] for line in lines if line and line[0] != "#"}
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"


def test_redis_has_room_for_what_it_may_be_given() -> None:
    found = re.search(r"^maxmemory (\d+)mb$", (ROOT / "docker/redis.conf").read_text(), re.MULTILINE)
    assert found
    spec = contract.open_version(ROOT / "model_repository/clicv2").manifest.preprocess
    pictures = sum(Settings.model_fields[name].default for name in ("queue_capacity", "dead_letters"))
    held = 1.5 * pictures * spec.height * spec.width * 3 + Settings.model_fields["jobs_held_bytes"].default
    assert int(found[1]) << 20 > held  # and answers, and its own needs


def test_the_extras_that_images_are_built_with_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ("gateway", "worker"):
        build = SERVICES[name]["build"]
        assert isinstance(build, dict)
        assert set(build["args"]["EXTRAS"].split(",")) <= extras.keys()
    default = re.search(r"^ARG EXTRAS=(\S+)$", (ROOT / "docker/service.Dockerfile").read_text(), re.MULTILINE)
    assert default
    assert default[1] in extras
