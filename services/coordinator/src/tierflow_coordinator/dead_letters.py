"""Dead letters (K4) as clients see them: those of runs are Tier 2's, those of swarms' own events are kept here; listed together."""

from __future__ import annotations

from typing import Any, Final

from tierflow_contracts.common.v1 import dead_letter_pb2 as pb
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.coordinator.v1 import dead_letter_pb2 as api
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_contracts.coordinator.v1.coordinator_service_pb2 import SubmitSwarmResponse
from tierflow_contracts.orchestrator.v1 import dead_letter_pb2 as runs
from tierflow_durable.dead_letters import DISCARDED, OPEN, RETRIED, LetterFilter
from tierflow_durable.durable import Durable
from tierflow_durable.letters import letter_message, publish_again, state_name
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.lineage import fill_reuse
from tierflow_runtime.requests import swarm_request
from tierflow_runtime.security import Caller, caller_of
from tierflow_runtime.values import Failure, FailureError, Reuse, Violation

from tierflow_coordinator import listing
from tierflow_coordinator.access import Access
from tierflow_coordinator.reaching import Reaching
from tierflow_coordinator.sessions import check_id

DEAD_LETTER: Final = "dead_letter"


class DeadLetters(Reaching):
    """Part of the coordinator's service."""

    _durable: Durable
    _access: Access

    async def _submitted(
        self, request: swarm_pb2.SwarmExecutionRequest, caller: Caller, *, may_reuse: bool = False
    ) -> SubmitSwarmResponse | Failure:
        raise NotImplementedError

    async def ListDeadLetters(  # noqa: N802 - named by the proto
        self, request: api.ListDeadLettersRequest, context: Any
    ) -> api.ListDeadLettersResponse:
        """See the proto."""
        caller = caller_of(context)
        size = listing.limit_of("page_size", request.page_size, default=100, most=1000)
        listing.check_texts(flow_name=request.flow_name)
        for name, value in (("swarm_id", request.swarm_id), ("page_token", request.page_token)):
            if value:
                check_id(name, value)
        wanted = LetterFilter(
            tenant=caller.tenant,
            user_id=self._access.visible_user(caller, ""),
            swarm_id=request.swarm_id or None,
            name=request.flow_name or None,
            states=_states(request) or (OPEN,),
            before_id=request.page_token or None,
            limit=size + 1,
        )
        letters = await self._letters(wanted, caller)
        more = len(letters) > size
        return api.ListDeadLettersResponse(letters=letters[:size], next_page_token=letters[size - 1].id if more else "")

    async def GetDeadLetter(  # noqa: N802
        self, request: api.GetDeadLetterRequest, context: Any
    ) -> api.GetDeadLetterResponse:
        """See the proto."""
        return api.GetDeadLetterResponse(letter=await self._letter(request.id, caller_of(context)))

    async def RetryDeadLetter(  # noqa: N802
        self, request: api.RetryDeadLetterRequest, context: Any
    ) -> api.RetryDeadLetterResponse:
        """See the proto."""
        caller = caller_of(context)
        listing.check_texts(reason=request.reason)
        letter = await self._letter(request.id, caller, hide=False)
        made = ""
        if letter.state == pb.DEAD_LETTER_STATE_DISCARDED:
            await self._resolve(
                letter, RETRIED, request.reason, caller
            )  # is refused, and says by whom it was discarded
        elif letter.kind != pb.DEAD_LETTER_KIND_EVENTS:
            made = letter.retried_as or await self._submit_again(letter, caller)
        done = await self._resolve(letter, RETRIED, request.reason, caller, made)
        return api.RetryDeadLetterResponse(letter=done, swarm_id=made)

    async def DiscardDeadLetter(  # noqa: N802
        self, request: api.DiscardDeadLetterRequest, context: Any
    ) -> api.DiscardDeadLetterResponse:
        """See the proto."""
        caller = caller_of(context)
        if not request.reason.strip():
            refuse_if([Violation(field="reason", description="say why nothing is to be done")])
        listing.check_texts(reason=request.reason)
        letter = await self._letter(request.id, caller, hide=False)
        return api.DiscardDeadLetterResponse(letter=await self._resolve(letter, DISCARDED, request.reason, caller))

    async def _letter(self, letter_id: str, caller: Caller, *, hide: bool = True) -> pb.DeadLetter:
        check_id("id", letter_id)
        found = await self._letters(LetterFilter(tenant=caller.tenant, id=letter_id, limit=1), caller)
        what = f"dead letter {letter_id}"
        tenant, user = (found[0].tenant, found[0].user_id) if found else ("", "")
        self._access.check(caller, tenant, user, what=what, hide=hide)
        return found[0]

    async def _letters(self, wanted: LetterFilter, caller: Caller) -> list[pb.DeadLetter]:
        """Of both tiers, newest first."""
        own = [letter_message(one) for one in await self._durable.dead_letters.page(wanted)]
        request = runs.ListRunDeadLettersRequest(
            tenant=wanted.tenant,
            user_id=wanted.user_id or "",
            swarm_id=wanted.swarm_id or "",
            flow_name=wanted.name or "",
            states=[pb.DeadLetterState.Value(f"DEAD_LETTER_STATE_{state}") for state in wanted.states],
            id=wanted.id or "",
            page_size=min(wanted.limit, 1000),
            before_id=wanted.before_id or "",
        )
        found = await (await self._runs_stub()).ListRunDeadLetters(request, **self._call(caller))
        return sorted([*own, *found.letters], key=lambda letter: letter.id, reverse=True)[: wanted.limit]

    async def _submit_again(self, letter: pb.DeadLetter, caller: Caller) -> str:
        """A new swarm with the flow and the input of the run that failed; the same one however often it is asked for."""
        run = await self._run(letter.run_id, caller)
        plan = swarm_pb2.FlowPlan(flow=flow_pb2.FlowRef(hash=run.flow_hash))
        if run.HasField("input"):
            plan.input.CopyFrom(run.input)
        origin = Reuse(
            run_id=letter.run_id,
            step_ids=(),
            swarm_id=letter.swarm_id,
            kind=DEAD_LETTER,
            traceparent=run.context.traceparent,
        )
        fill_reuse(plan.reuse, origin)
        made = swarm_request(swarm_pb2.SwarmInput(flow=plan))
        made.allocation.CopyFrom(run.allocation)
        made.options.CopyFrom(run.options)
        made.options.ClearField("not_before")
        made.context.request_id = f"dead-letter/{letter.id}"
        made.context.correlation_id = run.context.correlation_id
        made.context.labels.update(
            {key: value for key, value in run.context.labels.items() if not key.startswith("tierflow.")}
        )
        answer = await self._submitted(made, caller, may_reuse=True)
        if isinstance(answer, Failure):
            raise FailureError(answer)
        return str(answer.swarm_id)

    async def _resolve(
        self, letter: pb.DeadLetter, state: str, reason: str, caller: Caller, retried_as: str = ""
    ) -> pb.DeadLetter:
        if letter.run_id:
            request = runs.ResolveRunDeadLetterRequest(
                id=letter.id,
                tenant=caller.tenant,
                state=pb.DeadLetterState.Value(f"DEAD_LETTER_STATE_{state}"),
                actor=caller.user_id,
                reason=reason,
                retried_as=retried_as,
            )
            done = await (await self._runs_stub()).ResolveRunDeadLetter(request, **self._call(caller))
            return done.letter  # type: ignore[no-any-return]
        letters = self._durable.dead_letters
        if state == RETRIED and letter.state != pb.DEAD_LETTER_STATE_RETRIED:
            stored = await letters.find(letter.id, caller.tenant)
            await publish_again(await letters.rows_of(stored), "swarm", self._durable.publisher)
        return letter_message(
            await letters.resolve(letter.id, caller.tenant, state, actor=caller.user_id, reason=reason)
        )


def _states(request: api.ListDeadLettersRequest) -> tuple[str, ...]:
    found = []
    for index, number in enumerate(request.states):
        try:
            found.append(state_name(number))
        except ValueError:
            refuse_if([Violation(field=f"states[{index}]", description="is not a state")])
    return tuple(found)
