"""The policy file: read at the start, read again, never half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tierflow_orchestrator.policy import PolicyFile
from tierflow_runtime.values import FailureError


def written(path: Path, text: str, at: int) -> Path:
    path.write_text(text)
    os.utime(path, ns=(at, at))
    return path


@pytest.mark.parametrize("text", [None, "norms: [", "norms: [{name: a}]", "nomrs: []", "\xff"])
def test_a_service_does_not_start_on_rules_that_nobody_can_read(tmp_path: Path, text: str | None) -> None:
    """L5, L14: the setting is named, and what is wrong."""
    path = tmp_path / "policy.yaml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FailureError, match="TIERFLOW_POLICY_FILE") as wrong:
        PolicyFile(path)
    assert wrong.value.failure.code == "CONFIGURATION"


def test_what_changes_is_read_again_and_what_breaks_closes(tmp_path: Path) -> None:
    """C12, L14: nothing of the old rules holds while the new ones cannot be read."""
    path = written(tmp_path / "policy.yaml", "norms: [{name: a, permit: x}]", 1)
    policy = PolicyFile(path)
    assert [norm.name for norm in policy.current.norms] == ["a"]
    assert not policy.look()
    written(path, "norms: [{name: b, permit: x}]", 2)
    assert policy.look()
    assert [norm.name for norm in policy.current.norms] == ["b"]
    written(path, "norms: [{name: b, permit: }]", 3)
    policy.look()
    assert "not valid" in policy.current.unreadable
    assert not policy.current.norms
    path.unlink()
    policy.look()
    assert "cannot be read" in policy.current.unreadable
    written(path, "norms: [{name: c, permit: x}]", 4)
    policy.look()
    assert not policy.current.unreadable
    assert [norm.name for norm in policy.current.norms] == ["c"]
