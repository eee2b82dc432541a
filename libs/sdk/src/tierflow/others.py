"""Steps that leave it to others, in Python: to people, and to other flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tierflow.documents import Duration, Step, common_keys, duration_of, given, inputs_of, plain, retry_of, schema_of
from tierflow.expressions import Expression


class Others:
    """What a flow in the making can add of them."""

    def _add(self, id_: str, keys: dict[str, Any]) -> Step:
        raise NotImplementedError

    def flow(
        self,
        id: str,  # noqa: A002 - the word of the language
        flow: str,
        *,
        with_: Mapping[str, Any] | Expression | None = None,
        retry: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        output_schema: Mapping[str, Any] | type | None = None,
        on_parent_close: str | None = None,
        allocation: Mapping[str, int] | None = None,
        common: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> Step:
        """Add a step that runs another flow. The further keyword arguments are that flow's inputs.

        Args:
            id: Its id.
            flow: The flow: name, name@version, or sha256: and its hash.
            with_: As in `call`.
            retry: As in `call`.
            timeout: Longest time for a run of it.
            output_schema: As in `call`.
            on_parent_close: `cancel`, `wait` or `abandon`.
            allocation: Its share of `steps`, `credits`, `tokens`, `tool_calls`.
            common: `needs`, `if_`, `name`, `on_error`, as in `call`.
            **inputs: The flow's inputs.
        """
        keys = {
            "flow": flow,
            "with": inputs_of(with_, inputs),
            "retry": retry_of(retry),
            "timeout": duration_of("timeout", timeout),
            "output_schema": schema_of(output_schema),
            "on_parent_close": on_parent_close,
            "allocation": None if allocation is None else dict(allocation),
        }
        return self._add(id, {**keys, **common_keys(**(common or {}))})

    def approval(
        self,
        id: str,  # noqa: A002 - the word of the language
        message: str | Expression | None = None,
        *,
        users: Sequence[str | Expression] | Expression = (),
        roles: Sequence[str | Expression] | Expression = (),
        needed: int | None = None,
        timeout: Duration | None = None,
        escalate: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> Step:
        """Add a step that asks people and waits until they have decided.

        Args:
            id: The step's id.
            message: What is asked.
            users: Users who may decide.
            roles: Roles whose holders may decide.
            needed: So many different people must approve; one rejection is enough.
            timeout: Longest wait; then it is escalated, else rejected.
            escalate: `users`, `roles`, `timeout` of those who may decide as well then.
            **common: `needs`, `if_`, `name`, `on_error`, as in `call`.
        """
        keys = {
            "message": None if message is None else str(message),
            "users": plain(users) or None,
            "roles": plain(roles) or None,
            "needed": needed,
            "timeout": duration_of("timeout", timeout),
            "escalate": None if escalate is None else plain(escalate),
        }
        return self._add(id, {"approval": given(keys), **common_keys(**common)})
