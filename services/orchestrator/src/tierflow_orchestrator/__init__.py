"""Tier 2: runs of flows."""
