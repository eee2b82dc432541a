"""Text to `Flow`: the only way to get one. Everything that is wrong is told at once, and nothing but `FlowError` is raised."""

from __future__ import annotations

from tierflow_expressions.values import loads

from tierflow_flow.cache import FlowCache
from tierflow_flow.compiling import compile_flow
from tierflow_flow.definition import Flow
from tierflow_flow.reading import content_hash
from tierflow_flow.source import Document, fatal, read_document

_cache = FlowCache(max_bytes=64 << 20)


def parse(source_text: str, form: str = "yaml") -> Flow:
    """Check and compile the text of a flow; `form` is `yaml` or `json`. Raises `FlowError` with everything that is wrong."""
    return compile_flow(read_document(source_text, form), None)


def from_canonical(canonical: str) -> Flow:
    """Compile a canonical definition, as Tier 2 stores it; flows used lately are kept compiled, by hash. Raises `FlowError`.

    Hash and definition stay what they were, even where this version would write them otherwise.
    """
    try:
        digest = content_hash(canonical)
    except UnicodeEncodeError:
        raise fatal("holds half of a surrogate pair") from None
    flow = _cache.get(digest)
    if flow is None:
        try:
            flow = compile_flow(_plain(canonical), canonical)
        except RecursionError:
            raise fatal("nested too deeply") from None
        _cache.put(flow)
    return flow


def _plain(canonical: str) -> Document:
    try:
        return Document(loads(canonical), {}, ())
    except ValueError as error:
        raise fatal(f"not JSON: {error}") from None
