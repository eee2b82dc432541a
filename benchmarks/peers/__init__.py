"""Tierflow and its peers under the same load, on the same machine, in one run: `make bench-peers`."""
