"""The deterministic simulation: the real code of all three tiers in one process, on a virtual clock, over a simulated network, database and event stream.

See docs/simulation.md. `python -m simulation --help` runs it.
"""
