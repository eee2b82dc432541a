"""What executions were made of (K2, K3): a rerun, a fork or a replay names the one before it, in its journal, in its row's labels and in its trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tierflow_contracts.common.v1.execution_pb2 import ReusedSteps

from tierflow_runtime.values import Reuse

ORIGIN: Final = "tierflow.origin"
"""Label: the swarm that this one was made of. Clients cannot set labels that begin like this, and may filter by them."""
ORIGIN_KIND: Final = "tierflow.origin.kind"
ORIGIN_CHECKPOINT: Final = "tierflow.origin.checkpoint"


def fill_reuse(message: ReusedSteps, reuse: Reuse | None) -> None:
    """Fills a message's field; leaves it unset where there is nothing."""
    if reuse is None:
        return
    message.run_id = reuse.run_id
    message.step_ids.extend(reuse.step_ids)
    message.swarm_id = reuse.swarm_id
    message.kind = reuse.kind
    message.checkpoint = reuse.checkpoint
    message.at_seq = reuse.at_seq
    message.traceparent = reuse.traceparent


def reuse_from_proto(message: ReusedSteps) -> Reuse:
    """The same, read."""
    return Reuse(
        run_id=message.run_id,
        step_ids=tuple(message.step_ids),
        swarm_id=message.swarm_id,
        kind=message.kind,
        checkpoint=message.checkpoint,
        at_seq=message.at_seq,
        traceparent=message.traceparent,
    )


def with_origin(labels: Mapping[str, str], reuse: Reuse | None) -> Mapping[str, str]:
    """The labels of an execution's row: its own, and what it was made of."""
    if reuse is None or not reuse.swarm_id:
        return labels
    found = {**labels, ORIGIN: reuse.swarm_id, ORIGIN_KIND: reuse.kind}
    if reuse.checkpoint:
        found[ORIGIN_CHECKPOINT] = reuse.checkpoint
    return found


def origin_of(labels: Mapping[str, str]) -> ReusedSteps | None:
    """What a row says of where it came from; None where it came from nothing."""
    swarm_id = labels.get(ORIGIN)
    if swarm_id is None:
        return None
    return ReusedSteps(
        swarm_id=swarm_id, kind=labels.get(ORIGIN_KIND, ""), checkpoint=labels.get(ORIGIN_CHECKPOINT, "")
    )
