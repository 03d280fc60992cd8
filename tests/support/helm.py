"""`helm template` without a cluster: by the helm in PATH, else by Helm's own library out of a wheel.

The wheel helm-sdkpy carries Helm 4 as a shared library, which can install but not only render. So it
installs into an API server of ours that knows the kinds a chart may use, and that fails at the first
thing to be stored: the release, which holds everything rendered.
"""

import base64
import ctypes
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import yaml

Manifest = dict[str, object]

WHEEL = "helm-sdkpy==0.1.32"
VERSION = {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
KINDS = {
    "v1": {"ConfigMap": "configmaps", "Secret": "secrets", "Service": "services"},
    "apps/v1": {"Deployment": "deployments"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "keda.sh/v1alpha1": {"ScaledObject": "scaledobjects", "TriggerAuthentication": "triggerauthentications"},
    "monitoring.coreos.com/v1": {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
}


class HelmError(Exception):
    """Helm refuses the chart or the values."""


def template(chart: Path, values: Mapping[str, object], release: str = "clicv2") -> list[Manifest]:
    """What the chart would create in the namespace `default`. Raises HelmError."""
    binary = shutil.which("helm")
    rendered = _by_binary(binary, chart, values, release) if binary else _by_library(chart, values, release)
    return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]


def _by_binary(binary: str, chart: Path, values: Mapping[str, object], release: str) -> str:
    done = subprocess.run(
        [binary, "template", release, chart, "--values", "-", "--kube-version", "1.31"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def _by_library(chart: Path, values: Mapping[str, object], release: str) -> str:
    helm = _library()
    options = {"wait": False, "server_side_apply": "false", "disable_openapi_validation": True}
    handle = ctypes.c_uint64()
    with _api_server() as server, TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.write_text(_kubeconfig(server.server_port))
        if helm.helm_sdkpy_config_create(b"default", bytes(kubeconfig), None, b"{}", ctypes.byref(handle)):
            raise HelmError(helm.helm_sdkpy_last_error().decode())
        arguments = (release, str(chart), json.dumps(values), "", json.dumps(options))
        helm.helm_sdkpy_install(handle, *(argument.encode() for argument in arguments), ctypes.byref(ctypes.c_char_p()))
        error = helm.helm_sdkpy_last_error().decode()
        helm.helm_sdkpy_config_destroy(handle)
    # The release as Helm stores it: base64 of gzip of JSON, here inside a protobuf message.
    stored = re.search(rb"H4sI[A-Za-z0-9+/]+=*", server.posted)
    if stored is None:
        raise HelmError(error)
    rendered = json.loads(gzip.decompress(base64.b64decode(stored[0])))["manifest"]
    assert isinstance(rendered, str)
    return rendered


@cache
def _library() -> ctypes.CDLL:
    """Helm's library; the first time, its wheel is put into this environment's share/ (47 MB)."""
    folder = Path(sys.prefix) / "share" / WHEEL
    if not folder.exists():
        # Its Python part wants 3.12; only the library inside is used.
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-requires-python")
        with TemporaryDirectory(dir=sys.prefix) as new:
            subprocess.run([*pip, "--target", f"{new}/it", WHEEL], check=True)
            folder.parent.mkdir(exist_ok=True)
            Path(new, "it").replace(folder)
    [path] = folder.glob("helm_sdkpy/_lib/linux-amd64/*.so")
    library = ctypes.CDLL(str(path))
    library.helm_sdkpy_last_error.restype = ctypes.c_char_p
    return library


class _ApiServer(ThreadingHTTPServer):
    """Attributes:
    posted: the body of the first thing to be stored.
    """

    posted = b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _ApiServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = _discovery().get(path)
        if found is None and path.endswith("/secrets"):
            found = {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []}  # no earlier release
        self._answer(404 if found is None else 200, found or {"kind": "Status", "reason": "NotFound", "code": 404})

    def do_POST(self) -> None:
        self.server.posted = self.server.posted or self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(500, {"kind": "Status", "apiVersion": "v1", "message": "only rendering", "code": 500})

    def _answer(self, status: int, content: Mapping[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the base class's name for it
        pass


@cache
def _discovery() -> dict[str, dict[str, object]]:
    """What an API server says of the kinds that it knows, by path."""
    groups = [version.split("/") for version in KINDS if "/" in version]
    answers: dict[str, dict[str, object]] = {
        "/version": VERSION,
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {"name": name, "versions": [{"groupVersion": f"{name}/{version}", "version": version}]}
                for name, version in groups
            ],
        },
    }
    for version, kinds in KINDS.items():
        answers[f"/apis/{version}" if "/" in version else f"/api/{version}"] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": [
                {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
                for kind, name in kinds.items()
            ],
        }
    return answers


@contextmanager
def _api_server() -> Iterator[_ApiServer]:
    with _ApiServer(("127.0.0.1", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _kubeconfig(port: int) -> str:
    it = "test"
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": it,
            "contexts": [{"name": it, "context": {"cluster": it, "user": it}}],
            "clusters": [{"name": it, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": it, "user": {}}],
        }
    )
