"""Tier 1: swarms, admission, the public API."""
