"""Places in a watch, and the tokens by which a client comes back to them."""

from __future__ import annotations

import base64
import binascii

import orjson
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.values import Violation


class Place:
    """A place in a watch: how far it is in the swarm and in each of its runs."""

    def __init__(self, swarm_seq: int = 0, run_seqs: dict[str, int] | None = None) -> None:
        self.swarm_seq = swarm_seq
        self.run_seqs = run_seqs if run_seqs is not None else {}

    def token(self) -> str:
        """The place as a resume token."""
        text = orjson.dumps({"s": self.swarm_seq, "r": self.run_seqs})
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    def reached(self, entity_id: str, seq: int, *, of_swarm: bool) -> None:
        """Everything of the entity up to `seq` is behind this place."""
        if of_swarm:
            self.swarm_seq = seq
        else:
            self.run_seqs[entity_id] = seq

    @classmethod
    def of(cls, token: str) -> Place:
        """The place of a token; an empty one is the beginning.

        Raises:
            FailureError: INVALID_REQUEST.
        """
        if not token:
            return cls()
        try:
            value = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            swarm_seq, run_seqs = value["s"], value["r"]
            sound = _is_seq(swarm_seq) and isinstance(run_seqs, dict) and all(map(_is_seq, run_seqs.values()))
        except (ValueError, TypeError, KeyError, binascii.Error):
            sound = False
        if not sound:
            refuse_if([Violation(field="resume_token", description="was not given by a message before")], "watch")
        return cls(swarm_seq, run_seqs)


def _is_seq(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
