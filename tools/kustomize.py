"""Renders the kustomizations of k8s/ as `kubectl kustomize` does, without kubectl: the features that they use, and an error for any other.

Usage: kustomize.py DIRECTORY
"""

import pathlib
import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import yaml

Resource = dict[str, Any]

TEMPLATED = {"StatefulSet", "Deployment", "DaemonSet", "Job"}
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass"}


def render(directory: pathlib.Path) -> list[Resource]:
    """All resources of a kustomization, in the order in which they are named.

    Raises:
        ValueError: It uses a feature that is not known here, or patches what does not exist.
    """
    return _applied(directory, [])


def _applied(directory: pathlib.Path, resources: list[Resource]) -> list[Resource]:
    settings = yaml.safe_load((directory / "kustomization.yaml").read_text())
    for name in settings.get("resources", []):
        path = directory / name
        resources = [*resources, *(_applied(path.resolve(), []) if path.is_dir() else _load(path.read_text()))]
    for name in settings.get("components", []):
        resources = _applied((directory / name).resolve(), resources)
    for feature, value in settings.items():
        if feature in ("apiVersion", "kind", "resources", "components"):
            continue
        if feature not in FEATURES:
            raise ValueError(f"{directory}: {feature} is not known here")
        FEATURES[feature](directory, resources, value)
    return resources


def _load(text: str) -> list[Resource]:
    return [document for document in yaml.safe_load_all(text) if document]


def _patches(directory: pathlib.Path, resources: list[Resource], patches: list[dict[str, str]]) -> None:
    for patch in patches:
        for change in _load(patch["patch"] if "patch" in patch else (directory / patch["path"]).read_text()):
            _merge(_find(resources, change), change)


def _find(resources: list[Resource], like: Resource) -> Resource:
    for resource in resources:
        if resource["kind"] == like["kind"] and resource["metadata"]["name"] == like["metadata"]["name"]:
            return resource
    raise ValueError(f"nothing to patch: {like['kind']} {like['metadata']['name']}")


def _merge(target: Any, change: Any) -> None:
    """The strategic merge of Kubernetes as far as it is used: maps are merged, lists of named things by name, other values replaced."""
    for key, value in change.items():
        present = target.get(key)
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(present, dict):
            _merge(present, value)
        elif (
            isinstance(value, list)
            and isinstance(present, list)
            and all(isinstance(item, dict) and "name" in item for item in value)
        ):
            _merge_named(present, value)
        else:
            target[key] = deepcopy(value)


def _merge_named(present: list[Resource], changes: list[Resource]) -> None:
    by_name = {item["name"]: item for item in present}
    for change in changes:
        if change["name"] in by_name:
            _merge(by_name[change["name"]], change)
        else:
            present.append(deepcopy(change))


def _labels(_: pathlib.Path, resources: list[Resource], groups: list[dict[str, Any]]) -> None:
    for group in groups:
        for resource in resources:
            resource["metadata"].setdefault("labels", {}).update(group["pairs"])
            if group.get("includeTemplates") and resource["kind"] in TEMPLATED:
                resource["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {}).update(group["pairs"])


def _namespace(_: pathlib.Path, resources: list[Resource], name: str) -> None:
    for resource in resources:
        if resource["kind"] not in CLUSTER_WIDE:
            resource["metadata"]["namespace"] = name


def _images(_: pathlib.Path, resources: list[Resource], images: list[dict[str, str]]) -> None:
    wanted = {image["name"]: f"{image.get('newName', image['name'])}:{image['newTag']}" for image in images}
    for resource in resources:
        if resource["kind"] in TEMPLATED:
            pod = resource["spec"]["template"]["spec"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                container["image"] = wanted.get(container["image"], container["image"])


def _replicas(_: pathlib.Path, resources: list[Resource], counts: list[dict[str, Any]]) -> None:
    for count in counts:
        found = [item for item in resources if item["kind"] in TEMPLATED and item["metadata"]["name"] == count["name"]]
        if not found:
            raise ValueError(f"nothing to scale: {count['name']}")
        for resource in found:
            resource["spec"]["replicas"] = count["count"]


FEATURES: dict[str, Callable[[pathlib.Path, list[Resource], Any], None]] = {
    "patches": _patches,
    "labels": _labels,
    "namespace": _namespace,
    "images": _images,
    "replicas": _replicas,
}

if __name__ == "__main__":
    yaml.safe_dump_all(render(pathlib.Path(sys.argv[1]).resolve()), sys.stdout, sort_keys=False)
