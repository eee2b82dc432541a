"""The bounds of the flow language, in one place; docs/flows.md lists them."""

from __future__ import annotations

MAX_TEXT = 1 << 20
"""Bytes of a flow's text."""
MAX_DEPTH = 64
"""Levels of nesting in a flow's text."""
MAX_NODES = 400_000
"""Values in a flow's text, each alias counted with all that it stands for."""
MAX_CHARACTERS = 4 << 20
"""Characters of all strings and keys in a flow's text, each alias counted with all that it stands for."""
MAX_CANONICAL = 3 << 20
"""Bytes of a canonical definition; it fits into a gRPC message of the default size."""
MAX_STEPS = 10_000
MAX_PROBLEMS = 1_000
"""Problems that are listed; further ones are counted."""

MAX_NAME = 128
"""Characters of a flow's name, a step's id, a label's key."""
MAX_HANDLER = 200
MAX_VERSION = 64
MAX_DESCRIPTION = 4_096

MAX_ATTEMPTS = 100
MAX_FACTOR = 100.0
MAX_DELAY = 24 * 3_600 * 1_000_000
"""Longest delay before a retry, microseconds."""
MAX_TIMEOUT = 30 * 24 * 3_600 * 1_000_000
"""Longest timeout of an attempt, microseconds."""
MAX_RUN_TIMEOUT = 366 * 24 * 3_600 * 1_000_000
MAX_CONCURRENCY = 100_000
MAX_APPROVERS = 100
"""People who must approve."""
MAX_NORMS = 200
"""Norms of a flow or a policy."""
MAX_CASES = 100
"""Cases of a switch."""
MAX_BLOCKS = 8
"""Blocks inside one another."""
MAX_PATH = 256
"""Characters of a step's id with the ids of the steps around it."""
MAX_ITERATIONS = 10_000
"""Iterations of a loop."""
DEFAULT_ITERATIONS = 1_000
"""Of a loop that does not say."""
MAX_CREDITS = 10**15
"""Micro-credits that an attempt may be expected to cost."""
MAX_RULES = 100
"""Rules for the output of a step."""
MAX_GROWN = 1_000
"""Steps that grow below one step."""
MAX_CALLS = 100
"""Times that a step may call its handler."""
