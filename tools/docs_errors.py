"""The page of error codes, from the catalogue."""

from tierflow_runtime.catalogue import CATALOGUE


def page() -> str:
    """The page."""
    rows = [
        f"| `{entry.code}` | {entry.meaning} | `{entry.status.name}` | {'yes' if entry.retryable else 'no'} | {entry.hint} |"
        for entry in CATALOGUE.values()
    ]
    return "\n".join([_HEAD, *rows, "", _TAIL])


_HEAD = """# Error codes

Everything that can go wrong has one code. A failure carries it wherever it goes: in the journal, in events, in results, and in the status of a gRPC call, where it is
`google.rpc.ErrorInfo.reason` (domain `tierflow`). Codes that share a gRPC status are told apart by it: `QUEUE_FULL`, `RATE_LIMITED`, `TENANT_LIMIT`,
`BUDGET_EXHAUSTED`, `PAYLOAD_TOO_LARGE` and `MESSAGE_TOO_LARGE` are all `RESOURCE_EXHAUSTED`, and only some of them pass by waiting.

*Retry* says whether trying again can help where the failure itself does not say otherwise; `Failure.retryable` of the failure at hand decides.

| Code | What happened | gRPC status | Retry | What to do |
|---|---|---|---|---|"""

_TAIL = """## What a status carries

| Detail | When | For |
|---|---|---|
| `google.rpc.ErrorInfo` | always | the code as `reason`; component, operation, tier, step, `retryable` and `hint` as metadata |
| `google.rpc.BadRequest` | there are violations or flow problems | all of them, each with the path of its field |
| `google.rpc.RetryInfo` | the least time to wait is known | `Failure.retry_after` |
| `tierflow.common.v1.Failure` | always | the failure itself with its chain of causes, without internals |

A status travels as metadata, of which gRPC peers take 8 KiB by default. A longer list of violations is cut, and its last entry says by how many; `CheckFlow` and
`SubmitSwarms` carry failures in their answers and list all.

An error that is nobody's failure but a defect is `INTERNAL`: its message has an error id, and the log line with that `error_id` has the stack.

Handlers may have codes of their own, such as `CARD_DECLINED`: they travel as `Failure.handler_code` with `HANDLER_FAILED` (a retry may help) or `HANDLER_REJECTED`
(it will not), and retry policies name them like any other code.
"""
