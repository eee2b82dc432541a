"""The manifests: rendered, checked against the schemas of Kubernetes, and held against what the services do."""

import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest
import yaml
from tierflow_runtime.settings import PREFIX, described

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import check_kubernetes
import docs_settings
import kustomize

PROD = check_kubernetes.ROOT / "k8s/overlays/prod"
TIERS = ("coordinator", "orchestrator", "executor")
LAST_SECONDS = 5
"""What a service takes beyond its drain timeout."""


@pytest.fixture(scope="module")
def resources() -> list[dict[str, Any]]:
    return kustomize.render(PROD)


@pytest.fixture(scope="module")
def services(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The StatefulSet of each tier."""
    return {tier: one(resources, "StatefulSet", f"tierflow-{tier}") for tier in TIERS}


def one(resources: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [found] = [item for item in resources if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def pods(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All pod templates by the name of what makes them."""
    return {
        item["metadata"]["name"]: item["spec"]["template"] for item in resources if "template" in item.get("spec", {})
    }


def variables(service: dict[str, Any]) -> dict[str, Any]:
    [container] = service["spec"]["template"]["spec"]["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


@pytest.mark.parametrize("directory", check_kubernetes.overlays(), ids=lambda path: path.name)
def test_schemas_accept_the_manifests(directory: pathlib.Path) -> None:
    """Q33: every resource is valid for the oldest and the newest Kubernetes, unknown fields refused."""
    assert check_kubernetes.problems(directory) == []


def test_schemas_refuse_a_mistake(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q33: the check can fail: a misspelt field of a probe is found."""
    copy = tmp_path / "k8s"
    shutil.copytree(check_kubernetes.ROOT / "k8s", copy)
    broken = copy / "base/executor.yaml"
    broken.write_text(broken.read_text().replace("failureThreshold: 60", "failureTreshold: 60"))
    monkeypatch.setattr(check_kubernetes, "ROOT", tmp_path)
    assert any("failureTreshold" in line for line in check_kubernetes.problems(copy / "overlays/prod"))


@pytest.mark.skipif(not shutil.which("kubectl"), reason="compares with kubectl, which is not installed here")
def test_rendering_is_that_of_kubectl() -> None:
    """Q33: our rendering gives what kubectl gives."""
    for directory in check_kubernetes.overlays():
        text = subprocess.run(
            ["kubectl", "kustomize", str(directory)], check=True, capture_output=True, text=True
        ).stdout
        theirs, ours = list(yaml.safe_load_all(text)), kustomize.render(directory)
        assert len(theirs) == len(ours)
        assert all(resource in ours for resource in theirs)


def test_unknown_features_are_refused(tmp_path: pathlib.Path) -> None:
    """Q33: a feature that our rendering lacks is an error, not ignored."""
    (tmp_path / "kustomization.yaml").write_text("namePrefix: x-\n")
    with pytest.raises(ValueError, match="namePrefix is not known"):
        kustomize.render(tmp_path)


def test_probes_ask_the_right_question(services: dict[str, dict[str, Any]]) -> None:
    """Q33, L6, Lesson 35: a dead process is restarted, one without a database only gets no calls."""
    for tier, service in services.items():
        [container] = service["spec"]["template"]["spec"]["containers"]
        assert container["livenessProbe"]["grpc"]["service"] == "liveness", tier
        assert container["startupProbe"]["grpc"]["service"] == "liveness", tier
        assert "service" not in container["readinessProbe"]["grpc"], tier
        admin = int(variables(service)["TIERFLOW_ADMIN_PORT"])
        assert {container[f"{kind}Probe"]["grpc"]["port"] for kind in ("startup", "liveness", "readiness")} == {admin}
        assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
            "grpc": int(variables(service)["TIERFLOW_PORT"]),
            "admin": admin,
            "metrics": int(variables(service)["TIERFLOW_METRICS_PORT"]),
        }


def test_a_drain_has_time(services: dict[str, dict[str, Any]]) -> None:
    """Q22, Q33, Lesson 24: Kubernetes waits longer than a pod takes to be forgotten and to drain."""
    for tier, service in services.items():
        pod = service["spec"]["template"]["spec"]
        pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause >= 2, tier
        assert (
            pod["terminationGracePeriodSeconds"]
            > pause + int(variables(service)["TIERFLOW_DRAIN_TIMEOUT"]) + LAST_SECONDS
        ), tier


def test_least_privilege(resources: list[dict[str, Any]]) -> None:
    """Q33: no pod runs as root, writes its root, gains rights, or can call the Kubernetes API."""
    found = pods(resources)
    assert len(found) == 5
    for name, template in found.items():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name


def test_executors_have_no_credentials(services: dict[str, dict[str, Any]], resources: list[dict[str, Any]]) -> None:
    """Q33, B3: no executor gets the Secret of the stores, or an address of them."""
    assert "tierflow-stores" not in str(services["executor"])
    assert "DATABASE" not in str(services["executor"])
    shared = one(resources, "ConfigMap", "tierflow")["data"]
    assert not [name for name in shared if "DATABASE" in name or "NATS" in name]


def test_executors_have_no_route_to_the_stores(resources: list[dict[str, Any]]) -> None:
    """Q33: what the network policies leave to an executor; Postgres, NATS and the inside of the cluster are not in it."""
    executor = pods(resources)["tierflow-executor"]["metadata"]["labels"]
    rules = [rule for policy in selecting(resources, executor) for rule in policy["spec"].get("egress", [])]
    ports = {port["port"] for rule in rules for port in rule["ports"]}
    assert ports == {53, 80, 443, 4317}
    [outside] = [rule["to"][0]["ipBlock"] for rule in rules if "ipBlock" in rule["to"][0]]
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(outside["except"])
    for tier in ("coordinator", "orchestrator"):
        labels = pods(resources)[f"tierflow-{tier}"]["metadata"]["labels"]
        reachable = {
            p["port"]
            for policy in selecting(resources, labels)
            for rule in policy["spec"].get("egress", [])
            for p in rule["ports"]
        }
        assert {5432, 4222} <= reachable


def test_everything_else_is_closed(resources: list[dict[str, Any]]) -> None:
    """Q33: every pod is under the policy that closes both directions; executors are called by orchestrators only."""
    for name, template in pods(resources).items():
        policies = [policy["metadata"]["name"] for policy in selecting(resources, template["metadata"]["labels"])]
        assert "tierflow-closed" in policies, name
    [rule] = one(resources, "NetworkPolicy", "tierflow-executor")["spec"]["ingress"]
    assert [source["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for source in rule["from"]] == [
        "tierflow-orchestrator"
    ]


def test_tiers_find_each_other(services: dict[str, dict[str, Any]], resources: list[dict[str, Any]]) -> None:
    """Q33: the names that services look up are headless Services that select the right pods, ready or not."""
    for tier, variable, target in (
        ("coordinator", "TIERFLOW_ORCHESTRATORS", "orchestrator"),
        ("orchestrator", "TIERFLOW_EXECUTORS", "executor"),
    ):
        name, _, port = variables(services[tier])[variable].removeprefix("dns:///").partition(":")
        service = one(resources, "Service", name)["spec"]
        assert service["clusterIP"] == "None"
        assert service["publishNotReadyAddresses"] is True
        assert service["selector"].items() <= services[target]["spec"]["template"]["metadata"]["labels"].items()
        assert port == variables(services[target])["TIERFLOW_PORT"]
    for tier, service in services.items():
        assert one(resources, "Service", service["spec"]["serviceName"]), tier
        assert variables(service)["TIERFLOW_NAME"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_disruption_and_scale(services: dict[str, dict[str, Any]], resources: list[dict[str, Any]]) -> None:
    """Q33: a budget for each tier; the autoscaler owns the number of executors; replicas are spread."""
    for tier, service in services.items():
        labels = service["spec"]["template"]["metadata"]["labels"]
        budget = one(resources, "PodDisruptionBudget", f"tierflow-{tier}")["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        keys = {item["topologyKey"] for item in service["spec"]["template"]["spec"]["topologySpreadConstraints"]}
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert "replicas" not in services["executor"]["spec"]
    scaler = one(resources, "HorizontalPodAutoscaler", "tierflow-executor")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "tierflow-executor"
    assert scaler["minReplicas"] >= 2


def test_migrations_use_the_service_they_migrate(
    services: dict[str, dict[str, Any]], resources: list[dict[str, Any]]
) -> None:
    """Q33, I16: one Job per tier with a schema, with the image and the database of its service."""
    for tier in ("coordinator", "orchestrator"):
        spec = one(resources, "Job", f"tierflow-{tier}-migrate")["spec"]
        [container] = spec["template"]["spec"]["containers"]
        [serving] = services[tier]["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["migrate"]
        assert container["image"] == serving["image"]
        [database] = container["env"]
        assert database["valueFrom"] == variables(services[tier])["TIERFLOW_DATABASE_URL"]
        assert spec["ttlSecondsAfterFinished"] > 0


def test_every_variable_is_a_setting(services: dict[str, dict[str, Any]], resources: list[dict[str, Any]]) -> None:
    """Q33, L5: no manifest sets what its service does not read, or leaves out what it must be told."""
    shared = set(one(resources, "ConfigMap", "tierflow")["data"])
    for tier, service in services.items():
        fields = described(docs_settings.settings_of(tier))
        given = {name for name in shared | set(variables(service)) if name.startswith(PREFIX)}
        assert given <= {field.variable for field in fields}, tier
        assert {field.variable for field in fields if field.required} <= given, tier


def selecting(resources: list[dict[str, Any]], labels: dict[str, str]) -> list[dict[str, Any]]:
    """The network policies that apply to a pod with these labels."""
    return [
        item for item in resources if item["kind"] == "NetworkPolicy" and selects(item["spec"]["podSelector"], labels)
    ]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return wanted.items() <= labels.items() and all(labels.get(e["key"]) in e["values"] for e in expressions)


@pytest.mark.parametrize("name", ["performance", "load"])
def test_checks_are_jobs_of_their_own(name: str) -> None:
    """O8, O9, Q33: each runs the script that exists for it, once, as nobody, on an image that holds the repository, and writes only where it may."""
    spec = one(kustomize.render(check_kubernetes.ROOT / "k8s/overlays/checks"), "CronJob", f"tierflow-{name}")["spec"]
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    script = check_kubernetes.ROOT / container["command"][0]
    assert script.stat().st_mode & 0o111
    assert f"make -s {name} " in script.read_text()
    assert (spec["concurrencyPolicy"], spec["jobTemplate"]["spec"]["backoffLimit"]) == ("Forbid", 0)
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("Never", False)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    written = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert written == {"/reports", "/tmp"}
    assert {"name": "REPORT", "value": "/reports"} in container["env"]
    dockerfile = (check_kubernetes.ROOT / "k8s/overlays/checks/Dockerfile").read_text()
    assert f"USER {pod['securityContext']['runAsUser']}:" in dockerfile
    assert "COPY --chown=10001:10001 . ." in dockerfile
