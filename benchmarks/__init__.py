"""Benchmarks: the workloads that the project is measured by, against the real stack."""
