"""Tier 3: attempts at steps."""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
"""Read when gRPC is loaded, so it stands here. This process starts others that begin with an exec and never use gRPC; with fork support, gRPC's handlers
around the fork closed the pipes of such a process now and then: one attempt in five of `shell.run` under load."""
