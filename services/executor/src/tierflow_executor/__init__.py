"""Tier 3: attempts at steps."""
