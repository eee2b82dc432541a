"""Schedules: swarms at given times. `client.schedules` makes, shows and changes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.common.v1.explanation_pb2 import Explanation
from tierflow_contracts.common.v1.payload_pb2 import Payload
from tierflow_contracts.coordinator.v1 import schedule_pb2 as api

from tierflow.calls import Calls
from tierflow.errors import invalid
from tierflow.ids import new_id
from tierflow.submission import FlowLike, encode, flow_ref, swarm_request
from tierflow.times import duration

Span = float | str | timedelta
"""Seconds, a text such as `15m`, or a timedelta."""

_SPANS = ("every", "offset", "jitter", "catch_up")
_MOMENTS = ("start_at", "end_at")
_PLAIN = ("time_zone", "max_waiting", "pause_after_failures", "max_firings", "description")
_SWARM = ("flow", "input", "labels", "timeout", "priority", "budget", "correlation_id", "test_mode")
WHEN = ("cron", *_SPANS, *_MOMENTS, *_PLAIN, "overlap")
"""Names of what says when, and how, a schedule fires."""


class Schedules:
    """The schedules of a tenant. What it returns are the messages of the public contract."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self, name: str, flow: FlowLike, input: Any = None, *, paused: bool = False, reason: str = "", request_id: str | None = None, **options: Any  # noqa: A002
    ) -> api.Schedule:  # fmt: skip
        """Makes a schedule, and returns it.

        ```python
        await client.schedules.create("nightly", "report", {"day": "${{ schedule.date }}"}, cron="0 2 * * *", time_zone="Europe/Berlin")
        ```

        Args:
            name: Unique within the tenant.
            flow: What each firing runs: `name`, `name@version`, a path, a definition or a builder.
            input: Its input; in its texts `${{ schedule.time }}`, `.local_time`, `.date`, `.previous`, `.id`, `.kind` and `.name` stand for the firing.
            paused: Makes it PAUSED.
            reason: Why; kept in the history.
            request_id: The same id with the same arguments is the same schedule; chosen where none is given.
            options: When: `cron` (one or several), `every`, `offset`, `time_zone`, `start_at`, `end_at`, `jitter`. How: `overlap` (`skip`, `buffer_one`,
                `buffer_all`, `cancel_running`, `allow`), `max_waiting`, `catch_up`, `pause_after_failures`, `max_firings`, `description`. What: `labels`,
                `timeout`, `priority`, `budget`, `correlation_id`, `test_mode`, as `Client.submit` takes them.

        Raises:
            InvalidRequest: `.violations` lists all that is wrong.
            Conflict: The name is taken.
            NotFound: There is no such flow.
        """
        request = api.CreateScheduleRequest(
            name=name,
            spec=spec_of(flow=flow, input=input, **options),
            paused=paused,
            reason=reason,
            request_id=request_id or new_id(),
        )
        response: api.CreateScheduleResponse = await self._calls.call("CreateSchedule", request)
        return response.schedule

    async def get(self, name: str) -> api.Schedule:
        """One schedule with its latest firings. Raises `NotFound`."""
        response: api.GetScheduleResponse = await self._calls.call("GetSchedule", api.GetScheduleRequest(name=name))
        return response.schedule

    async def explain(self, name: str) -> Explanation:
        """Why a schedule does not fire now. Raises `NotFound`."""
        response: api.GetScheduleResponse = await self._calls.call("GetSchedule", api.GetScheduleRequest(name=name))
        return response.explanation

    def list(self, *, ended: bool = False, limit: int | None = None) -> AsyncIterator[api.Schedule]:
        """Schedules, newest first, each with its last firing; with `ended` also those that are over, as long as they are kept."""
        return self._pages(api.ListSchedulesRequest(include_ended=ended), limit)

    async def _pages(self, request: api.ListSchedulesRequest, limit: int | None) -> AsyncIterator[api.Schedule]:
        count = 0
        while True:
            page: api.ListSchedulesResponse = await self._calls.call("ListSchedules", request)
            for schedule in page.schedules:
                if limit is not None and count >= limit:
                    return
                count += 1
                yield schedule
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update(self, name: str, *, reason: str = "", **changes: Any) -> api.Schedule:
        """Changes what is named, keeps the rest, and returns it as it is then; times up to now do not fire again.

        Takes what `create` takes; None takes a thing away. Raises `InvalidRequest`, `NotFound`, and `Conflict` where somebody else has changed it meanwhile.
        """
        known = await self.get(name)
        request = api.UpdateScheduleRequest(
            name=name,
            spec=changed(known.spec, changes),
            expected_version=known.version,
            reason=reason,
            command_id=new_id(),
        )
        response: api.UpdateScheduleResponse = await self._calls.call("UpdateSchedule", request)
        return response.schedule

    async def pause(self, name: str, reason: str = "") -> bool:
        """Lets its times pass. Returns whether that changed anything. Raises `NotFound`."""
        request = api.PauseScheduleRequest(name=name, reason=reason, command_id=new_id())
        return bool((await self._calls.call("PauseSchedule", request)).applied)

    async def resume(self, name: str, reason: str = "") -> bool:
        """Fires again from now on. Returns whether that changed anything. Raises `NotFound`."""
        request = api.ResumeScheduleRequest(name=name, reason=reason, command_id=new_id())
        return bool((await self._calls.call("ResumeSchedule", request)).applied)

    async def trigger(self, name: str, *, overlap: str = "", reason: str = "", command_id: str = "") -> pb.Firing:
        """Fires it now, also while it is paused. `firing.swarm_id` is the swarm; empty where it was skipped, and `firing.reason` says why. Raises `NotFound`."""
        request = api.TriggerScheduleRequest(
            name=name,
            overlap=_overlap(overlap),
            reason=reason,
            command_id=command_id or new_id(),
        )
        response: api.TriggerScheduleResponse = await self._calls.call("TriggerSchedule", request)
        return response.firing

    async def backfill(
        self, name: str, first: datetime, last: datetime, *, concurrent: bool = False, check: bool = False, reason: str = ""
    ) -> Sequence[datetime]:  # fmt: skip
        """Fires the times of a past range, one after the other or all at once, and returns them; with `check` only returns them.

        Raises `NotFound`, and `InvalidRequest` for a range with more than 1000 times or in the future.
        """
        request = api.BackfillScheduleRequest(
            name=name, concurrent=concurrent, validate_only=check, reason=reason, command_id=new_id()
        )
        getattr(request, "from").CopyFrom(_timestamp(first))
        request.to.CopyFrom(_timestamp(last))
        response: api.BackfillScheduleResponse = await self._calls.call("BackfillSchedule", request)
        return [time.ToDatetime(UTC) for time in response.times]

    async def times(self, name: str, limit: int = 10, *, after: datetime | None = None) -> Sequence[datetime]:
        """When it is going to fire, jitter included. Raises `NotFound`."""
        request = api.ListScheduleTimesRequest(name=name, limit=limit)
        if after is not None:
            request.after.CopyFrom(_timestamp(after))
        return await self._times(request)

    async def preview(self, limit: int = 10, *, after: datetime | None = None, **when: Any) -> Sequence[datetime]:
        """When a schedule that is not made would fire, without jitter; takes what says when in `create`. Raises `InvalidRequest`."""
        request = api.ListScheduleTimesRequest(spec=changed(pb.ScheduleSpec(), when), limit=limit)
        if after is not None:
            request.after.CopyFrom(_timestamp(after))
        return await self._times(request)

    async def _times(self, request: api.ListScheduleTimesRequest) -> Sequence[datetime]:
        response: api.ListScheduleTimesResponse = await self._calls.call("ListScheduleTimes", request)
        return [time.fires_at.ToDatetime(UTC) for time in response.times]

    async def delete(self, name: str, reason: str = "", *, cancel_running: bool = False) -> bool:
        """Ends it for good; its swarms go on, or are cancelled. Its name is free again. Returns whether that changed anything. Raises `NotFound`."""
        request = api.DeleteScheduleRequest(
            name=name, reason=reason, cancel_running=cancel_running, command_id=new_id()
        )
        return bool((await self._calls.call("DeleteSchedule", request)).applied)


def spec_of(**given: Any) -> pb.ScheduleSpec:
    """A schedule's content from arguments. Raises `InvalidRequest`."""
    return changed(pb.ScheduleSpec(), given)


def changed(spec: pb.ScheduleSpec, changes: Mapping[str, Any]) -> pb.ScheduleSpec:
    """A schedule's content with what is named changed; None takes a thing away. Raises `InvalidRequest`."""
    made = pb.ScheduleSpec()
    made.CopyFrom(spec)
    for name, value in changes.items():
        if name in _SWARM:
            continue
        if name not in WHEN:
            raise invalid(f"spec.{name}", f"there is no such option; there are {', '.join((*WHEN, *_SWARM))}")
        made.ClearField(name)  # type: ignore[arg-type]
        if value is not None:
            _set(made, name, value)
    _set_swarm(made.swarm, {name: value for name, value in changes.items() if name in _SWARM})
    return made


def _set(spec: pb.ScheduleSpec, name: str, value: Any) -> None:
    if name == "cron":
        spec.cron.extend([value] if isinstance(value, str) else value)
    elif name in _SPANS:
        getattr(spec, name).CopyFrom(duration(value, f"spec.{name}"))
    elif name in _MOMENTS:
        getattr(spec, name).CopyFrom(_timestamp(value))
    elif name == "overlap":
        spec.overlap = _overlap(value)
    else:
        setattr(spec, name, value)


def _set_swarm(template: pb.SwarmTemplate, given: Mapping[str, Any]) -> None:
    """What each firing makes."""
    if given.get("flow") is not None:
        template.flow.CopyFrom(flow_ref(given["flow"]))
    if "input" in given:
        value = given["input"]
        template.input.CopyFrom(Payload(json="{}" if value is None else encode(value, "spec.swarm.input")))
    if "labels" in given:
        template.labels.clear()
        template.labels.update(given["labels"] or {})
    if "correlation_id" in given:
        template.correlation_id = given["correlation_id"] or ""
    _set_options(template, given)


def _set_options(template: pb.SwarmTemplate, given: Mapping[str, Any]) -> None:
    """Limits and options, built where those of a submission are."""
    names = ("timeout", "priority", "test_mode", "budget")
    options = {name: given[name] for name in names if given.get(name) is not None}
    if options:
        request = swarm_request(template.flow, None, "", **options)
        template.options.MergeFrom(request.options)
        if request.HasField("allocation"):
            template.allocation.CopyFrom(request.allocation)


def _overlap(name: str) -> pb.OverlapPolicy.ValueType:
    if not name:
        return pb.OVERLAP_POLICY_UNSPECIFIED
    try:
        return pb.OverlapPolicy.Value(f"OVERLAP_POLICY_{name.upper()}")
    except ValueError:
        raise invalid("overlap", f"{name!r} is no policy; there are {', '.join(overlaps())}") from None


def overlaps() -> Iterable[str]:
    """Names of the policies for overlaps."""
    names = (name.removeprefix("OVERLAP_POLICY_").lower() for name in pb.OverlapPolicy.keys())  # noqa: SIM118 - an enum of protobuf is no dict
    return [name for name in names if name != "unspecified"]


def _timestamp(moment: datetime) -> Timestamp:
    """A moment; one without a time zone is local time."""
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC))
    return message
