"""The Helm chart renders to what Kubernetes accepts, and its pods obey the rules of docker-compose.yml."""

import copy
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm
import kubernetes_validate
import prometheus
import pytest
import yaml

from service.queue.keys import GROUP, Keys
from service.server import UPLOADS_S
from service.settings import Settings

ROOT = Path(__file__).parents[3]
CHART = ROOT / "docker/helm"
VARIABLES = {field.validation_alias or f"CLICV2_{name.upper()}" for name, field in Settings.model_fields.items()}
JOBS = {job["job_name"] for job in yaml.safe_load((prometheus.CONFIG / "prometheus.yml").read_text())["scrape_configs"]}
# What is not Kubernetes' own: of KEDA and of the Prometheus Operator.
OTHERS = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")

SCALED = {
    "gateway": {"autoscaling": {"enabled": True}},
    "worker": {
        "autoscaling": {
            "enabled": True,
            "redis": {"address": "redis.data.svc:6379", "passwordSecret": {"name": "redis-password"}},
        }
    },
    "triton": {"autoscaling": {"enabled": True}},
}
VALUES: dict[str, dict[str, object]] = {
    "default": {},
    "scaled": {**SCALED},
    "gpu": {"triton": {"gpu": True, "nodeSelector": {"gpu": "yes"}, "tolerations": [{"operator": "Exists"}]}},
    "all": {
        **copy.deepcopy(SCALED),
        "image": {"prefix": "registry.example/clicv2/", "tag": "1.2.3", "pullSecrets": ["pull"]},
        "settings": {"CLICV2_MAX_BATCH_SIZE": "32", "CLICV2_ACCESS_LOG": "true"},
        "modelRepository": {"existingClaim": "models"},
        "networkPolicy": {"enabled": True},
        "monitoring": {"enabled": True, "dashboards": {"enabled": True}},
    },
}
WATCHED = {
    "enabled": True,
    "labels": {"release": "kube-prometheus-stack"},
    "gatewayKey": {"name": "prometheus-key"},
    "grafana": "https://grafana.example/",
}


@pytest.fixture(scope="module", params=VALUES)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return helm.template(CHART, VALUES[request.param])


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for deployment in of_kind(objects, "Deployment").values():
        yield deployment["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.27", "1.31"])
def test_kubernetes_accepts_all(objects: list[dict[str, Any]], version: str) -> None:
    for one in objects:
        if one["apiVersion"] not in OTHERS:
            kubernetes_validate.validate(one, version, strict=True)


def test_there_is_what_should_be(objects: list[dict[str, Any]]) -> None:
    assert of_kind(objects, "Deployment").keys() == {"clicv2-gateway", "clicv2-worker", "clicv2-triton"}
    assert of_kind(objects, "PodDisruptionBudget").keys() == of_kind(objects, "Deployment").keys()
    assert of_kind(objects, "Service").keys() == {"clicv2-gateway", "clicv2-triton"}


def test_containers_can_write_and_become_nothing(objects: list[dict[str, Any]]) -> None:
    for pod in pods(objects):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
            assert not container["image"].endswith(":latest")
            assert ":" in container["image"]


def test_every_container_is_probed(objects: list[dict[str, Any]]) -> None:
    for pod in pods(objects):
        for container in pod["containers"]:
            assert container.keys() >= {"readinessProbe", "livenessProbe", "startupProbe"}
            if container["name"] != "triton":
                assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
                assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_names_lead_to_what_is_there(objects: list[dict[str, Any]]) -> None:
    """A wrong one is no error to Kubernetes: nothing is selected, mounted or scaled, or the pod never starts."""
    deployments = of_kind(objects, "Deployment")
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in deployments.values()]
    selectors = [one["spec"]["selector"] for one in of_kind(objects, "Service").values()]
    for kind in ("Deployment", "PodDisruptionBudget"):
        selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(objects, kind).values()]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(objects, "PodMonitor").values()]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(objects, "NetworkPolicy").values()]
    for selector in selectors:
        assert sum(selector.items() <= one.items() for one in labels) == 1
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for one in of_kind(objects, kind).values():
            target = one["spec"]["scaleTargetRef"]["name"]
            assert target in deployments
            assert "replicas" not in deployments[target]["spec"]  # or each upgrade would undo the scaling
    config_maps = of_kind(objects, "ConfigMap").keys()
    for pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume} <= config_maps
        for container in pod["containers"] + pod.get("initContainers", []):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
            assert {source["configMapRef"]["name"] for source in container.get("envFrom", [])} <= config_maps


def test_settings_exist(objects: list[dict[str, Any]]) -> None:
    assert of_kind(objects, "ConfigMap")["clicv2"]["data"].keys() <= VARIABLES
    for pod in pods(objects):
        for container in pod["containers"]:
            assert {variable["name"] for variable in container.get("env", [])} <= VARIABLES


def test_a_drain_is_never_cut_short(objects: list[dict[str, Any]]) -> None:
    notice_s = float(of_kind(objects, "ConfigMap")["clicv2"]["data"]["CLICV2_DRAIN_NOTICE_S"])
    assert notice_s < Settings.model_fields["drain_timeout_s"].default  # of which it is a part
    longest_s = Settings.model_fields["drain_timeout_s"].default + UPLOADS_S
    assert all(pod["terminationGracePeriodSeconds"] > longest_s for pod in pods(objects))


def test_triton_is_for_the_machine_that_there_is() -> None:
    for gpu in (False, True):
        objects = helm.template(CHART, {"triton": {"gpu": gpu}})
        [container] = of_kind(objects, "Deployment")["clicv2-triton"]["spec"]["template"]["spec"]["containers"]
        assert ("--model-config-name=cpu" in container["args"]) is not gpu
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) is gpu
        assert container["image"].startswith("nvcr.io/" if gpu else "clicv2-triton-cpu:")


def test_workers_scale_on_the_queue_and_triton_on_its_own() -> None:
    scaled = of_kind(helm.template(CHART, VALUES["scaled"]), "ScaledObject")
    [worker] = scaled["clicv2-worker"]["spec"]["triggers"]
    assert worker["type"] == "redis-streams"
    assert worker["metadata"]["stream"] == Keys("clicv2").jobs
    assert worker["metadata"]["streamLength"] == "16"
    assert GROUP not in worker["metadata"].values()  # the length says it all
    assert scaled["clicv2-worker"]["spec"]["minReplicaCount"] >= 1
    [triton] = scaled["clicv2-triton"]["spec"]["triggers"]
    assert triton["type"] == "prometheus"
    assert "nv_inference_queue_duration_us" in triton["metadata"]["query"]


def test_each_pod_is_scraped_once_and_by_the_name_that_rules_know() -> None:
    """By annotations where nobody says otherwise; where there is an operator by monitors, and by nothing else."""
    for values in ({}, {"monitoring": WATCHED}):
        objects = helm.template(CHART, values)
        monitors = of_kind(objects, "PodMonitor")
        for name, deployment in of_kind(objects, "Deployment").items():
            pod = deployment["spec"]["template"]
            annotated = pod["metadata"].get("annotations") or {}
            assert ("prometheus.io/port" in annotated) is ("prometheus.io/scrape" in annotated) is (not values)
            assert (name in monitors) is bool(values)
            if not values:
                continue
            [endpoint] = monitors[name]["spec"]["podMetricsEndpoints"]
            ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
            assert endpoint["port"] in ports
            assert ("authorization" in endpoint) is (name == "clicv2-gateway")
            job = pod["metadata"]["labels"][monitors[name]["spec"]["jobLabel"]]
            assert job in JOBS
            assert WATCHED["labels"].items() <= monitors[name]["metadata"]["labels"].items()  # type: ignore[attr-defined]


def test_the_operators_rules_are_composes_for_this_namespace(tmp_path: Path) -> None:
    """All of them, with a way to this Grafana, and deaf to what else a cluster's Prometheus sees."""
    [rules] = of_kind(helm.template(CHART, {"monitoring": WATCHED}), "PrometheusRule").values()
    groups = rules["spec"]["groups"]
    files = (ROOT / "docker/prometheus/rules").glob("*.yml")
    known = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert {group["name"]: len(group["rules"]) for group in groups} == {
        group["name"]: len(group["rules"]) for group in known
    }
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    promtool = prometheus.program("promtool")
    done = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for group in groups:
        for rule in group["rules"]:
            assert not re.search(r'\bup\{(?!namespace="default")', rule["expr"]), rule
            if "alert" in rule:
                for link in ("runbook_url", "dashboard_url"):
                    assert rule["annotations"][link].startswith("https://grafana.example/d/")


def test_dashboards_are_config_maps_that_a_sidecar_finds() -> None:
    objects = helm.template(CHART, {"monitoring": {"enabled": True, "dashboards": {"enabled": True}}})
    found = [one for one in of_kind(objects, "ConfigMap").values() if "grafana_dashboard" in one["metadata"]["labels"]]
    kept = sorted((ROOT / "docker/grafana/dashboards").rglob("*.json"))
    boards = [json.loads(text) for one in found for text in one["data"].values()]
    assert sorted(board["uid"] for board in boards) == sorted(json.loads(path.read_text())["uid"] for path in kept)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"gatway": {}}, "gatway"),
        ({"worker": {"replicas": 0}}, "replicas"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"settings": {"CLICV2_REDIS_URL": "redis://:password@redis"}}, "CLICV2_REDIS_URL"),
        ({"triton": {"gpuImage": "nvcr.io/nvidia/tritonserver"}}, "gpuImage"),
        ({"worker": {"autoscaling": {"enabled": True}}}, "address"),
        ({"worker": {"autoscaling": {"minReplicas": 0}}}, "minReplicas"),
        ({"monitoring": {"grafana": "grafana"}}, "grafana"),
        ({"monitoring": {"dashboards": {"labels": {"grafana_dashboard": 1}}}}, "grafana_dashboard"),
    ],
)
def test_values_that_cannot_work_are_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(helm.HelmError, match=complaint):
        helm.template(CHART, values)


def test_a_release_of_another_name_stands_beside_it() -> None:
    objects = helm.template(CHART, {}, "blue")
    assert of_kind(objects, "Deployment").keys() == {"blue-clicv2-gateway", "blue-clicv2-worker", "blue-clicv2-triton"}


def test_the_chart_is_of_the_packages_version_and_composes_images() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == project["version"]
    gpu_image = yaml.safe_load((CHART / "values.yaml").read_text())["triton"]["gpuImage"]
    assert f"image: {gpu_image}\n" in (ROOT / "docker/compose.gpu.yml").read_text()
