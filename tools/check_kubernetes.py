"""Renders every overlay of k8s/ and checks each resource against the schemas of the oldest and the newest Kubernetes that are supported.

Usage: check_kubernetes.py
"""

import pathlib
import sys
import warnings

import kubernetes_validate
import kustomize

ROOT = pathlib.Path(__file__).resolve().parent.parent
OLDEST = "1.30"
"""preStop sleep without a shell, which the manifests use, is on by default since then."""


def problems(directory: pathlib.Path) -> list[str]:
    """What is wrong with the resources of a kustomization, one line each."""
    found = []
    for resource in kustomize.render(directory):
        name = f"{directory.relative_to(ROOT)}: {resource['kind']} {resource['metadata']['name']}"
        for version in (OLDEST, newest()):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{name} ({version}): {error.message} at {'.'.join(map(str, error.path))}")
            except UserWarning as warning:
                found.append(f"{name} ({version}): {warning}")
    return found


def newest() -> str:
    """The newest Kubernetes whose schemas are installed."""
    return str(kubernetes_validate.latest_version())


def overlays() -> list[pathlib.Path]:
    """All overlays, and the base."""
    return [ROOT / "k8s/base", *sorted(path.parent for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))]


if __name__ == "__main__":
    wrong = [line for directory in overlays() for line in problems(directory)]
    sys.exit("\n".join(wrong) if wrong else 0)
