"""The catalogue of errors."""

from tierflow_runtime.catalogue import CATALOGUE


def page() -> str:
    """The page."""
    lines = [
        "# Errors",
        "",
        "Everything that can go wrong. Each status carries `google.rpc.ErrorInfo` with domain `tierflow` and the code as reason, and the whole failure with its causes.",
        "*Retry* says whether the same request can succeed later; a failure may say otherwise for itself.",
        "",
        "| code | gRPC status | retry | meaning | what to do |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{entry.code}` | {entry.status.name} | {'yes' if entry.retryable else 'no'} | {entry.meaning} | {entry.hint} |"
        for entry in CATALOGUE.values()
    ]
    return "\n".join(lines) + "\n"
