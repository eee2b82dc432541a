"""What executors say, frame by frame: each report counts only if it is of an attempt that was given to whoever makes it (R23, R24)."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime import wire

from tierflow_orchestrator.claims import Refusals
from tierflow_orchestrator.flights import REPLACED, Flight, Reports, name_of
from tierflow_orchestrator.link import Link
from tierflow_orchestrator.slots import Slots


class Hearing:
    """The half of the dispatcher that listens. The other half gives it attempts, and ends them."""

    flights: dict[str, Flight]
    slots: Slots
    refusals: Refusals
    _reports: Reports

    def land(self, attempt_id: str) -> None:
        """An attempt is over here: its slot is free."""
        raise NotImplementedError

    def acknowledge(self, link: Link, attempt_id: str) -> None:
        """The executor may forget the result of an attempt."""
        raise NotImplementedError

    def _lose(self, flight: Flight, reason: str) -> None:
        raise NotImplementedError

    def _execute(self, flight: Flight, link: Link, make: Any) -> None:
        raise NotImplementedError

    def _expect(self, flight: Flight, request: step_pb2.StepExecutionRequest) -> None:
        raise NotImplementedError

    def _never_ran(self, flight: Flight) -> None:
        """An attempt was to be stopped, and its executor does not know it and will refuse it: nothing of it is alive."""
        self.land(flight.attempt_id)
        self._reports.stopped(flight.run_id, flight.attempt_id)

    def heard(self, link: Link, frame: pb.ExecuteStepsResponse) -> None:
        """A batch from an executor."""
        self._note_room(link, frame)
        for started in frame.started:
            flight = self._flight_of(link, started.attempt_id, "started")
            if flight is not None:
                self._reports.started(flight.run_id, flight.attempt_id, wire.micros(started.started_at))
        for result in frame.results:
            self._result(link, result)
        for status in frame.statuses:
            self._status(link, status)
        for receipt in frame.cancelled:
            self._receipt(link, receipt)
        for progress in frame.progress:
            if self._flight_of(link, progress.attempt_id, "progress", progress) is not None:
                self._reports.progress(progress)
        if frame.results or frame.HasField("slots"):
            self.slots.pump()

    def _flight_of(self, link: Link, attempt_id: str, kind: str, said: Any = None) -> Flight | None:
        """The attempt of which an executor speaks; None, and counted, where it is over or another's, or where it is said to be of another step."""
        flight = self.flights.get(attempt_id)
        if flight is None:
            self.refusals.note("stale", kind, link.key, attempt_id)
            return None
        elsewhere = (
            said is not None and flight.step_id and (said.run_id, said.step_id) != (flight.run_id, flight.step_id)
        )
        if flight.executor != link.key or elsewhere:
            self.refusals.note("foreign", kind, link.key, attempt_id)
            return None
        return flight

    def _result(self, link: Link, result: step_pb2.StepExecutionResult) -> None:
        attempt_id = result.context.attempt_id
        flight = self.flights.get(attempt_id)
        if flight is not None and flight.executor != link.key:
            self.refusals.note("foreign", "result", link.key, attempt_id)
            self.acknowledge(link, attempt_id)  # else it would be sent for ever
            return
        self.land(attempt_id)
        self._reports.result(link, result)

    def _note_room(self, link: Link, frame: pb.ExecuteStepsResponse) -> None:
        if frame.HasField("slots"):
            link.slots = frame.slots
        if frame.draining:
            link.draining = True

    def _status(self, link: Link, status: pb.AttemptStatus) -> None:
        """The answer to an adoption: only an attempt that its executor does not know is sent (again), under its id."""
        flight = self.flights.get(status.attempt_id)
        if flight is None:
            return
        if status.state != 0:
            self._is_known(flight, link)
            return
        if flight.executor != link.key:
            if name_of(flight.executor) == name_of(link.key):
                self._lose(flight, REPLACED)
        elif flight.stop_reason is not None:
            self._never_ran(flight)
        elif link.draining:
            self._lose(flight, "its executor is draining and has not taken it")
        elif flight.make is not None:
            self._execute(flight, link, flight.make)

    def _is_known(self, flight: Flight, link: Link) -> None:
        """An attempt that was adopted goes on; from now on its timeout counts here as well."""
        if flight.executor == link.key and flight.make is not None and not flight.due:
            self._expect(flight, flight.make())

    def _receipt(self, link: Link, receipt: pb.CancelStepResponse) -> None:
        flight = self.flights.get(receipt.attempt_id)
        if flight is None:
            return
        if flight.executor != link.key:
            self.refusals.note("foreign", "receipt", link.key, receipt.attempt_id)
            return
        if receipt.receipt == pb.CANCEL_RECEIPT_UNKNOWN:
            self._never_ran(flight)
        elif receipt.receipt == pb.CANCEL_RECEIPT_UNCONFIRMED:
            self._reports.unconfirmed(flight.run_id, flight.attempt_id)
