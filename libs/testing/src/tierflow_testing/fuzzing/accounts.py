"""What was accepted, so that afterwards nothing is found stored that was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from tierflow_contracts.events.v1 import event_pb2
from tierflow_flow import FlowError, parse

from tierflow_testing.fuzzing.calls import Outcome

AGAIN = ("RerunSwarm", "ForkSwarm", "ReplaySwarm")
"""Calls that start a swarm from another."""


@dataclass(slots=True)
class Accounts:
    """Ids of what the services said that they took; and of what they may have taken although nobody heard it."""

    swarms: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    flows: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)
    request_ids: set[str] = field(default_factory=set)
    nameless: int = 0
    """Swarms without a request id that may have been taken although nobody heard it."""

    def take(self, outcome: Outcome) -> None:
        """Notes one call."""
        name = outcome.case.method.name
        requests = list(_parsed(outcome))
        for answer in outcome.answers:
            self._answered(name, answer)
        if name in ("StartRun", "CommandRun", "ExecuteRuns"):
            self._runs(name, outcome, requests)
        for request in requests:
            if name == "PutBlob" and outcome.failure is None:
                self.blobs.add(request.sha256)
            self._sources(request, outcome)
        if outcome.failure is None and outcome.status != "OK":
            self._unheard(name, requests)

    def _answered(self, name: str, answer: Any) -> None:
        if name == "SubmitSwarm":
            self.swarms.add(answer.swarm_id)
        elif name in ("SubmitSwarms", "ExecuteSwarms"):
            self.swarms.update(each.accepted.swarm_id for each in answer.answers if each.HasField("accepted"))
        elif name in AGAIN:
            self.swarms.add(answer.accepted.swarm_id)
        elif name == "RegisterFlow":
            self.flows.add(answer.flow.hash)

    def _unheard(self, name: str, requests: list[Any]) -> None:
        """This side was gone before an answer came: what was asked for may have been taken."""
        field_of = {"SubmitSwarms": "requests", "ExecuteSwarms": "execute"}.get(name)
        asked = [each for request in requests for each in getattr(request, field_of)] if field_of else requests
        for each in asked if field_of or name in ("SubmitSwarm", *AGAIN) else ():
            request_id = each.request_id if name in AGAIN else each.context.request_id
            if request_id:
                self.request_ids.add(request_id)
            else:
                self.nameless += 1

    def _runs(self, name: str, outcome: Outcome, requests: list[Any]) -> None:
        if name == "ExecuteRuns":
            # A stream that is closed early may leave answers unheard; who was asked for once and refused was not taken.
            refused = set(_ids_in(outcome.answers, "refused"))
            asked = Counter(each.context.run_id for request in requests for each in request.execute)
            self.runs.update(run_id for run_id, times in asked.items() if times > 1 or run_id not in refused)
            self.runs.update(_ids_in(requests, "commands"))
        elif outcome.failure is None:
            self.runs.update(request.context.run_id if name == "StartRun" else request.run_id for request in requests)

    def _sources(self, request: Message, outcome: Outcome) -> None:
        """A flow that came along with what was refused only when it was to be stored (its request id was taken) may be there."""
        if (
            outcome.reason == "REQUEST_ID_REUSED"
            or outcome.failure is None
            or outcome.case.method.name.endswith(("Swarms", "Runs"))
        ):
            for text, form in _texts(request):
                try:
                    self.flows.add(parse(text, form).hash)
                except FlowError:
                    continue

    async def strangers(self, database_url: str, own: Set[str]) -> list[str]:
        """What is stored that nobody was told of; `own`: swarms that were not counted here."""
        self.swarms.update(own)
        connection: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
        try:
            return [*await self._strange_entities(connection), *await self._strange_values(connection)]
        finally:
            await connection.close()

    async def _strange_entities(self, connection: asyncpg.Connection[Any]) -> list[str]:
        swarms = {row["id"] for row in await connection.fetch("SELECT id::text FROM coordinator.entity")}
        keyed = await connection.fetch("SELECT request_id, entity_id::text FROM coordinator.request")
        unheard = {row["entity_id"] for row in keyed if row["request_id"] in self.request_ids}
        strange = swarms - self.swarms - unheard
        found = [f"swarm {each}" for each in strange] if len(strange) > self.nameless else []
        found += [f"request id {row['request_id']!r} of no swarm" for row in keyed if row["entity_id"] not in swarms]
        found += await self._strange_runs(connection, swarms)
        for schema in ("coordinator", "orchestrator"):
            rows = await connection.fetch(
                f"SELECT DISTINCT entity_id::text AS id FROM {schema}.journal j WHERE NOT EXISTS (SELECT FROM {schema}.entity e WHERE e.id = j.entity_id)"
            )
            found += [f"events of no entity: {schema} {row['id']}" for row in rows]
        return found

    async def _strange_runs(self, connection: asyncpg.Connection[Any], swarms: Set[str]) -> list[str]:
        rows = await connection.fetch("SELECT id::text, parent_id::text FROM orchestrator.entity")
        return [f"run {row['id']}" for row in rows if row["parent_id"] not in swarms and row["id"] not in self.runs]

    async def _strange_values(self, connection: asyncpg.Connection[Any]) -> list[str]:
        used = set(self.flows)
        for row in await connection.fetch("SELECT data FROM orchestrator.journal WHERE first_seq = 1"):
            used.add(event_pb2.EventBatch.FromString(row["data"]).events[0].run_created.flow.hash)
        flows = await connection.fetch("SELECT hash, name FROM orchestrator.flow")
        found = [f"flow {row['name']} {row['hash']}" for row in flows if row["hash"] not in used]
        # What a run that was taken was given, and what its steps gave, is a blob where it is large: its journal names it.
        blobs = await connection.fetch(
            """SELECT name FROM (SELECT DISTINCT encode(sha256, 'hex') AS name FROM orchestrator.blob) b
            WHERE name <> ALL ($1) AND NOT EXISTS (SELECT FROM orchestrator.journal WHERE position(convert_to(name, 'UTF8') IN data) > 0)""",
            list(self.blobs),
        )
        return found + [f"blob {row['name']}" for row in blobs]


def _ids_in(messages: Iterable[Any], field_name: str) -> list[str]:
    return [each.run_id for message in messages for each in getattr(message, field_name)]


def _parsed(outcome: Outcome) -> Iterable[Any]:
    kind = GetMessageClass(outcome.case.method.input_type)
    for frame in outcome.case.frames:
        try:
            yield kind.FromString(frame)
        except DecodeError:
            continue


def _texts(message: Message) -> Iterable[tuple[str, str]]:
    """The flows' texts anywhere within a message."""
    if message.DESCRIPTOR.full_name == "tierflow.common.v1.FlowSource":
        form = message.WhichOneof("text")
        if form:
            yield getattr(message, form), form
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        for each in value if descriptor.is_repeated else (value,):
            yield from _texts(each)
