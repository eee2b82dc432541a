"""Ways in which sound records are falsified, each with the kinds of problems that the auditor must find."""

from collections.abc import Callable
from typing import Any

import asyncpg
from forged import Falsify, Forged
from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.events.v1 import event_pb2
from tierflow_durable.ids import uuid7

BROKEN_RUN = "an invariant of runs is broken"
CASES: dict[str, tuple[Falsify, tuple[str, ...]]] = {}


def finds(*kinds: str) -> Callable[[Falsify], Falsify]:
    """Registers a falsification with the kinds of problems that must be among those that are found."""

    def register(falsify: Falsify) -> Falsify:
        CASES[falsify.__name__] = (falsify, kinds)
        return falsify

    return register


# --- runs ---


@finds("not exactly one end of each generation (V1, R31)", BROKEN_RUN)
async def two_ends(records: Forged) -> None:
    await records.add(records.run, "run_ended")


@finds("sequence numbers have gaps or repeat (H18)", "a journal row does not hold what it says (R6)")
async def a_gap(records: Forged) -> None:
    events = await records.events(records.run)
    await records.write(records.run, [*events[:3], *events[4:]])


@finds("sequence numbers have gaps or repeat (H18)")
async def a_repeated_number(records: Forged) -> None:
    events = await records.events(records.run)
    await records.write(records.run, [*events[:3], events[2], *events[3:]])


@finds(BROKEN_RUN)
async def a_step_completed_twice(records: Forged) -> None:
    events = await records.events(records.run)
    at = next(place for place, event in enumerate(events) if event.WhichOneof("payload") == "step_completed")
    again = event_pb2.Event()
    again.CopyFrom(events[at])
    events.insert(at + 1, again)
    for seq, event in enumerate(events, 1):
        event.seq = seq
    await records.write(records.run, events)


@finds(BROKEN_RUN)
async def a_wrong_bill(records: Forged) -> None:
    def change(ended: Any, _: event_pb2.Event) -> None:
        ended.usage.credits += 1

    await records.edit(records.run, "run_ended", change)


@finds("time goes back (R17)")
async def time_goes_back(records: Forged) -> None:
    def change(_: Any, event: event_pb2.Event) -> None:
        event.time.seconds -= 3600

    await records.edit(records.run, "step_completed", change)


@finds("a row and its journal disagree (R6)")
async def a_row_says_another_state(records: Forged) -> None:
    await records.sql("UPDATE orchestrator.entity SET state = 'FAILED' WHERE id = $1", records.run)


@finds("journal without an entity (R3)", "a run that was taken does not exist (R28)")
async def a_run_without_a_row(records: Forged) -> None:
    await records.sql("DELETE FROM orchestrator.entity WHERE id = $1", records.run)


@finds("quarantined (R13)")
async def quarantined(records: Forged) -> None:
    await records.sql(
        "UPDATE orchestrator.entity SET reason = 'QUARANTINED', state = 'SUSPENDED' WHERE id = $1", records.run
    )


@finds("a snapshot ahead of its journal (K6)")
async def a_snapshot_ahead(records: Forged) -> None:
    await records.sql(
        "INSERT INTO orchestrator.snapshot (entity_id, seq, data) VALUES ($1, 999, 'x'::bytea)", records.run
    )


# --- who owns what ---


@finds("ended and still owned (R15)", "owned by a fenced instance (R11)")
async def owned_after_the_end(records: Forged) -> None:
    await records.sql("UPDATE orchestrator.entity SET owner = $2 WHERE id = $1", records.run, uuid7())


@finds("nobody owns it and nothing wakes it (R15)", "not ended (K1)")
async def forgotten(records: Forged) -> None:
    await records.drop(records.run, "run_ended")
    await records.sql("UPDATE orchestrator.entity SET ended_at = NULL, state = 'RUNNING' WHERE id = $1", records.run)


@finds("due, and nobody takes it (R15)")
async def overslept(records: Forged) -> None:
    await forgotten(records)
    await records.sql("UPDATE orchestrator.entity SET wake_at = 1000000 WHERE id = $1", records.run)


@finds("ended and not acknowledged (R28)")
async def not_acknowledged(records: Forged) -> None:
    records.settled = False
    await records.sql(
        "INSERT INTO orchestrator.unacknowledged (id, generation, ended_at) VALUES ($1, 1, 1000000)", records.run
    )


@finds("a transaction left open (F31)")
async def a_transaction_left_open(records: Forged) -> None:
    held = await asyncpg.connect(records.url)
    records.open.append(held)
    await held.execute("BEGIN")
    await held.fetchval("SELECT 1")
    await records.sql("SELECT pg_sleep(1.1)")


# --- swarms and their runs ---


@finds(
    "an event after the end (V1)",
    "not exactly one end of each generation (V1, R31)",
    "a move that the table does not have (C2)",
)
async def a_swarm_ends_twice(records: Forged) -> None:
    await records.add(records.swarm, "swarm_ended")


@finds("an event after the end (V1)", "what a swarm shares changed out of order (U9)")
async def a_blackboard_that_jumps(records: Forged) -> None:
    await _shared(records, event_pb2.BlackboardChanged(revision=7))


@finds("an event after the end (V1)", "a key's version was there before (U9)")
async def a_key_with_a_version_that_was_there(records: Forged) -> None:
    changed = event_pb2.BlackboardChanged(revision=2)
    changed.changes.add(key="a", previous_version=2)
    await _shared(records, changed)


async def _shared(records: Forged, changed: event_pb2.BlackboardChanged) -> None:
    events = await records.events(records.swarm)
    event = event_pb2.Event(seq=events[-1].seq + 1, blackboard_changed=changed)
    event.time.CopyFrom(events[-1].time)
    await records.write(records.swarm, [*events, event])


@finds("a swarm's first event (V3)")
async def a_swarm_is_created_twice(records: Forged) -> None:
    await records.add(records.swarm, "swarm_created")


@finds("a swarm with another's id (L2)")
async def anothers_id(records: Forged) -> None:
    def change(created: Any, _: event_pb2.Event) -> None:
        created.context.swarm_id = records.other_swarm

    await records.edit(records.swarm, "swarm_created", change)


@finds("a run that no swarm asked for (R28)", "a run ended that was never asked for (R28)")
async def a_run_that_nobody_asked_for(records: Forged) -> None:
    def change(requested: Any, _: event_pb2.Event) -> None:
        requested.run_id = uuid7()

    await records.edit(records.swarm, "run_requested", change)


@finds("a run that no step asked for (E12)")
async def a_child_that_no_step_asked_for(records: Forged) -> None:
    def change(created: Any, _: event_pb2.Event) -> None:
        created.context.attempt_id = f"{uuid7()}/step/1"

    await records.edit(records.run, "run_created", change)


@finds("a run of another swarm (R28)")
async def a_run_of_another_swarm(records: Forged) -> None:
    def change(created: Any, _: event_pb2.Event) -> None:
        created.context.swarm_id = records.other_swarm

    await records.edit(records.run, "run_created", change)


@finds("a run ended twice (R28)")
async def a_run_finishes_twice(records: Forged) -> None:
    await records.add(records.swarm, "run_finished")


@finds("a run's end was told wrongly (F23)")
async def another_output_was_told(records: Forged) -> None:
    def change(finished: Any, _: event_pb2.Event) -> None:
        finished.output.json = '"forged"'

    await records.edit(records.swarm, "run_finished", change)


@finds("acknowledged and not stored (R28)")
async def an_end_that_was_not_stored(records: Forged) -> None:
    await records.drop(records.swarm, "run_finished")


@finds("a swarm ended before its run (G4)")
async def a_swarm_ended_before_its_run(records: Forged) -> None:
    await forgotten(records)


@finds("a swarm ended otherwise than its run (F23)")
async def another_end_than_the_runs(records: Forged) -> None:
    def change(ended: Any, _: event_pb2.Event) -> None:
        ended.to = state_pb2.SWARM_STATE_FAILED

    await records.edit(records.swarm, "swarm_ended", change)


@finds("a swarm's usage is not that of its runs (D4)")
async def a_swarm_books_too_little(records: Forged) -> None:
    def change(ended: Any, _: event_pb2.Event) -> None:
        ended.usage.credits -= 1

    await records.edit(records.swarm, "swarm_ended", change)


@finds("a tombstone that was taken (R29)")
async def a_tombstone_that_was_taken(records: Forged) -> None:
    def change(created: Any, _: event_pb2.Event) -> None:
        created.flow.hash = ""

    await records.edit(records.run, "run_created", change)


# --- request ids ---


@finds("a request id of several swarms (A14)", "a swarm without its request id (R8)")
async def one_request_id_for_two_swarms(records: Forged) -> None:
    def change(created: Any, _: event_pb2.Event) -> None:
        created.context.request_id = "two"

    await records.edit(records.swarm, "swarm_created", change)


@finds("a request id of no swarm (R8)")
async def a_request_id_of_no_swarm(records: Forged) -> None:
    await records.sql("UPDATE coordinator.request SET entity_id = $2 WHERE entity_id = $1", records.swarm, uuid7())


# --- executions ---


@finds("an attempt was executed more than once (R24)", "executed again although executors lived (S7)")
async def an_attempt_was_repeated(records: Forged) -> None:
    records.noted([*records.facts(), records.facts()[0]])


@finds("executed, and not in the journal (R24)")
async def an_attempt_that_nobody_decided(records: Forged) -> None:
    stray = {**records.facts()[0], "attempt_id": f"{records.run}/a/77"}
    records.noted([*records.facts(), stray])


@finds("an idempotency key changed (K10)")
async def another_key_for_the_second_attempt(records: Forged) -> None:
    facts = records.facts()
    next(fact for fact in facts if fact["attempt_id"] == f"{records.run}/b/2")["idempotency_key"] += "!"
    records.noted(facts)


@finds("completed without execution (S7)")
async def completed_by_nobody(records: Forged) -> None:
    records.noted([fact for fact in records.facts() if fact["attempt_id"] != f"{records.run}/b/2"])


@finds("executed again although executors lived (S7)")
async def given_up_although_its_executor_lived(records: Forged) -> None:
    def lost(retrying: Any, _: event_pb2.Event) -> None:
        retrying.failure.code = failure_pb2.ERROR_CODE_EXECUTOR_LOST

    await records.edit(records.run, "step_retrying", lost)


# --- the stream ---


@finds("events missing on JetStream (H4)")
async def an_event_that_was_not_published(records: Forged) -> None:
    await records.add(records.run, "step_completed")


@finds("published, and not in the journal (R21)")
async def an_event_that_the_journal_lost(records: Forged) -> None:
    events = await records.events(records.run)
    await records.write(records.run, events[:-1])
