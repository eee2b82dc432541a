"""The calls about schedules, as part of the public API (Q6)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as swarms
from tierflow_contracts.coordinator.v1 import schedule_pb2 as api
from tierflow_durable.ids import uuid7
from tierflow_durable.reading import EntityRow, ListFilter
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.contract_basics import check_text, sound_timestamp
from tierflow_runtime.errors import failure, public
from tierflow_runtime.security import Caller, caller_of
from tierflow_runtime.shielding import finished
from tierflow_runtime.values import Failure, FailureError, Micros, Violation
from tierflow_runtime.wire import failure_to_proto, micros, timestamp

from tierflow_coordinator import listing
from tierflow_coordinator.access import Access
from tierflow_coordinator.core.schedules import commands, states
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.core.schedules.spec import Spec
from tierflow_coordinator.core.schedules.times import moments, text_of
from tierflow_coordinator.schedules import checks, views
from tierflow_coordinator.schedules.hosting import Schedules
from tierflow_coordinator.schedules.wire import OVERLAPS, SCHEDULE_STATES, spec_from_proto
from tierflow_coordinator.sessions import check_id

MOST_BACKFILLED: Final = 1000


class ScheduleCalls:
    """Part of the servicer."""

    _access: Access
    _schedules: Schedules

    async def CreateSchedule(self, request: api.CreateScheduleRequest, context: Any) -> api.CreateScheduleResponse:
        """See the proto."""
        caller, now = caller_of(context), self._schedules.now()
        found: list[Violation] = []
        checks.check_name(request.name, found)
        _check_texts(request, found, "request_id")
        checks.check_spec(request.spec, now, found)
        refuse_if(found, "schedules", "CreateSchedule")
        await self._check_template(request.spec, caller)
        command = commands.CreateSchedule(
            name=request.name,
            tenant=caller.tenant,
            user_id=caller.user_id,
            roles=caller.roles,
            spec=spec_from_proto(request.spec),
            request_id=request.request_id,
            paused=request.paused,
            reason=request.reason,
        )
        if request.validate_only:
            return api.CreateScheduleResponse(schedule=self._schedules.preview(command))
        schedule_id, created = await finished(self._schedules.create(command))
        if not created:
            await self._require_same(command, caller)
        return api.CreateScheduleResponse(schedule=await self._schedule_shown(schedule_id), created=created)

    async def _require_same(self, command: commands.CreateSchedule, caller: Caller) -> None:
        """The name is taken: by the same request, or by another. Raises FailureError ALREADY_EXISTS."""
        row = await self._schedules.named(caller.tenant, command.name)
        known: Schedule | None = None if row is None else await self._schedules.view(row.id, lambda state: state)
        same = known is not None and command.request_id and known.request_id == command.request_id
        if not (
            same
            and known is not None
            and known.user_id == caller.user_id
            and known.specs.get(1, known.spec) == command.spec
        ):
            text = f"There is a schedule {command.name!r} already; update or delete it, or choose another name."
            violation = Violation(field="name", description="is taken")
            raise FailureError(
                failure(
                    "ALREADY_EXISTS", text, component="schedules", operation="CreateSchedule", violations=(violation,)
                )
            )

    async def GetSchedule(self, request: api.GetScheduleRequest, context: Any) -> api.GetScheduleResponse:
        """See the proto."""
        schedule = await self._schedule(request.name, caller_of(context))
        return api.GetScheduleResponse(
            schedule=await self._schedule_shown(schedule.schedule_id), explanation=views.explanation(schedule)
        )

    async def ListSchedules(self, request: api.ListSchedulesRequest, context: Any) -> api.ListSchedulesResponse:
        """See the proto."""
        caller = caller_of(context)
        wanted = _filter_of(request, caller.tenant, self._access.visible_user(caller, ""))
        page = await self._schedules.page(wanted)
        names = {SCHEDULE_STATES.name(state) for state in request.states}
        rows = [row for row in page.rows if not names or row.state in names]
        shown = await asyncio.gather(*(self._schedule_shown(row.id, full=False) for row in rows))
        return api.ListSchedulesResponse(schedules=shown, next_page_token=page.next_id or "")

    async def UpdateSchedule(self, request: api.UpdateScheduleRequest, context: Any) -> api.UpdateScheduleResponse:
        """See the proto."""
        caller = caller_of(context)
        found: list[Violation] = []
        _check_texts(request, found)
        checks.check_spec(request.spec, self._schedules.now(), found)
        schedule = await self._schedule(request.name, caller, hide=False, found=found)
        await self._check_template(request.spec, caller)
        reply = await self._tell_schedule(
            schedule,
            commands.UpdateSchedule(
                spec=spec_from_proto(request.spec),
                expected_version=request.expected_version,
                **_said(request, caller),
            ),
        )
        return api.UpdateScheduleResponse(
            schedule=await self._schedule_shown(schedule.schedule_id), applied=reply.applied
        )

    async def PauseSchedule(self, request: api.PauseScheduleRequest, context: Any) -> api.PauseScheduleResponse:
        """See the proto."""
        reply = await self._steer_schedule(request, context, commands.PauseSchedule)
        return api.PauseScheduleResponse(applied=reply.applied, state=SCHEDULE_STATES.number(reply.state))

    async def ResumeSchedule(self, request: api.ResumeScheduleRequest, context: Any) -> api.ResumeScheduleResponse:
        """See the proto."""
        reply = await self._steer_schedule(request, context, commands.ResumeSchedule)
        return api.ResumeScheduleResponse(applied=reply.applied, state=SCHEDULE_STATES.number(reply.state))

    async def DeleteSchedule(self, request: api.DeleteScheduleRequest, context: Any) -> api.DeleteScheduleResponse:
        """See the proto."""
        reply = await self._steer_schedule(
            request, context, commands.DeleteSchedule, cancel_running=request.cancel_running
        )
        return api.DeleteScheduleResponse(applied=reply.applied, state=SCHEDULE_STATES.number(reply.state))

    async def TriggerSchedule(self, request: api.TriggerScheduleRequest, context: Any) -> api.TriggerScheduleResponse:
        """See the proto."""
        found: list[Violation] = []
        if request.overlap and not OVERLAPS.knows(request.overlap):
            found.append(Violation(field="overlap", description=f"is not one of {', '.join(OVERLAPS.names)}"))
        reply = await self._steer_schedule(
            request, context, commands.TriggerSchedule, found=found, overlap=OVERLAPS.name(request.overlap)
        )
        firing = reply.firing
        if firing is None:  # It fired long ago, and is forgotten.
            return api.TriggerScheduleResponse(applied=reply.applied)
        message = views.firing_message(firing)
        if firing.state == states.REQUESTED:
            schedule = await self._schedule(request.name, caller_of(context))
            self._add_swarm(message, await self._schedules.made(schedule, firing))
        return api.TriggerScheduleResponse(applied=firing.state != states.SKIPPED, firing=message)

    def _add_swarm(self, message: pb.Firing, made: swarms.SubmitSwarmResponse | Failure | None) -> None:
        if isinstance(made, Failure):
            message.failure.CopyFrom(failure_to_proto(public(made)))
        elif made is not None:
            message.swarm_id = made.swarm_id
            message.state = pb.FIRING_STATE_STARTED

    async def BackfillSchedule(
        self, request: api.BackfillScheduleRequest, context: Any
    ) -> api.BackfillScheduleResponse:
        """See the proto."""
        caller = caller_of(context)
        found: list[Violation] = []
        _check_texts(request, found)
        first, last = _moment(request, "from", found), _moment(request, "to", found)
        if not found:
            checks.check_range(first, last, self._schedules.now(), found)
        schedule = await self._schedule(request.name, caller, hide=False, found=found)
        times = await asyncio.to_thread(_times_between, schedule, first, last)
        reply = commands.Reply(applied=False, state=schedule.state)
        if not request.validate_only:
            command = commands.BackfillSchedule(times=times, concurrent=request.concurrent, **_said(request, caller))
            reply = await self._tell_schedule(schedule, command)
        return api.BackfillScheduleResponse(applied=reply.applied, times=[timestamp(time) for time in times])

    async def ListScheduleTimes(
        self, request: api.ListScheduleTimesRequest, context: Any
    ) -> api.ListScheduleTimesResponse:
        """See the proto."""
        caller = caller_of(context)
        limit = listing.limit_of("limit", request.limit, default=10, most=1000)
        found: list[Violation] = []
        now = self._schedules.now()
        after = _moment(request, "after", found) if request.HasField("after") else now
        if request.HasField("spec"):
            if not request.spec.HasField("swarm"):
                request.spec.swarm.flow.name = "any"  # It is about times only.
            checks.check_spec(request.spec, now, found)
            refuse_if(found, "schedules", "ListScheduleTimes")
            spec, schedule_id = spec_from_proto(request.spec), ""
        else:
            schedule = await self._schedule(request.name, caller, found=found)
            spec, schedule_id = schedule.spec, schedule.schedule_id
        return api.ListScheduleTimesResponse(
            times=await asyncio.to_thread(_next_times, spec, schedule_id, after, limit)
        )

    # --- shared ---

    async def _check_template(self, spec: pb.ScheduleSpec, caller: Caller) -> None:
        """Refuses what could never be made. Raises FailureError in the schedule's terms."""
        try:
            await self._schedules.check(spec, caller)
        except FailureError as error:
            raise FailureError(checks.moved(error.failure)) from error

    async def _steer_schedule(
        self,
        request: Any,
        context: Any,
        kind: type[commands.Told],
        *,
        found: list[Violation] | None = None,
        **more: Any,
    ) -> commands.Reply:
        caller = caller_of(context)
        found = [] if found is None else found
        _check_texts(request, found)
        schedule = await self._schedule(request.name, caller, hide=False, found=found)
        return await self._tell_schedule(schedule, kind(**_said(request, caller), **more))

    async def _tell_schedule(self, schedule: Schedule, command: Any) -> commands.Reply:
        # Shielded: a client that hangs up has said what it wanted.
        reply: commands.Reply = await finished(self._schedules.tell(schedule.schedule_id, command))
        return reply

    async def _schedule(
        self, name: str, caller: Caller, *, hide: bool = True, found: list[Violation] | None = None
    ) -> Schedule:
        """The schedule of a name, if the caller may see it; its state as committed.

        Raises:
            FailureError: INVALID_REQUEST with everything in `found`, NOT_FOUND, PERMISSION_DENIED.
        """
        wrong = [] if found is None else found
        checks.check_name(name, wrong)
        refuse_if(wrong, "schedules", "check")
        row: EntityRow | None = await self._schedules.named(caller.tenant, name)
        if row is None or row.state == states.DELETED:
            raise FailureError(failure("NOT_FOUND", f"There is no schedule {name}.", component="schedules"))
        self._access.check(caller, row.tenant, row.user_id, what=f"schedule {name}", hide=hide)
        schedule: Schedule = await self._schedules.view(row.id, lambda state: state)
        return schedule

    async def _schedule_shown(self, schedule_id: str, *, full: bool = True) -> api.Schedule:
        return await self._schedules.shown(schedule_id, full=full)


def _filter_of(request: api.ListSchedulesRequest, tenant: str, user: str | None) -> ListFilter:
    """The filter of a list. Raises FailureError INVALID_REQUEST."""
    limit = listing.limit_of("page_size", request.page_size, default=50, most=200)
    if request.page_token:
        check_id("page_token", request.page_token)
    unknown = [index for index, state in enumerate(request.states) if not SCHEDULE_STATES.knows(state)]
    refuse_if([Violation(field=f"states[{index}]", description="is not a state") for index in unknown])
    return ListFilter(
        tenant=tenant,
        user_id=user,
        states=() if request.include_ended or request.states else states.OPEN,
        before_id=request.page_token or None,
        limit=limit,
    )


def _times_between(schedule: Schedule, first: Micros, last: Micros) -> tuple[Micros, ...]:
    """The times of a range. Raises FailureError INVALID_REQUEST where there are too many."""
    times: list[Micros] = []
    for moment in moments(schedule.spec, schedule.schedule_id, first - 1):
        if moment.time >= last:
            break
        if len(times) == MOST_BACKFILLED:
            text = f"there are more than {MOST_BACKFILLED} times in the range; the first {MOST_BACKFILLED} end before {text_of(moment.time)}"
            refuse_if([Violation(field="to", description=text)], "schedules", "BackfillSchedule")
        times.append(moment.time)
    return tuple(times)


def _next_times(spec: Spec, schedule_id: str, after: Micros, limit: int) -> list[api.ScheduleTime]:
    found: list[api.ScheduleTime] = []
    for moment in moments(spec, schedule_id, after):
        found.append(views.time_message(moment.time, moment.fires_at))
        if len(found) == limit:
            break
    return found


def _said(request: Any, caller: Caller) -> dict[str, str]:
    return {"command_id": request.command_id or uuid7(), "actor": caller.user_id, "reason": request.reason}


def _check_texts(request: Any, found: list[Violation], name: str = "command_id") -> None:
    check_text(name, getattr(request, name), found)
    check_text("reason", request.reason, found, longest=2000)


def _moment(request: Any, field: str, found: list[Violation]) -> Micros:
    if not request.HasField(field):
        found.append(Violation(field=field, description="required"))
        return 0
    moment = getattr(request, field)
    return micros(moment) if sound_timestamp(field, moment, found) else 0
