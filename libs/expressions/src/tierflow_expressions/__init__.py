"""Expressions and templates: CEL within bounds of time and memory, and JSON values with `${{ }}` holes. Pure; both Tier 1 and the flow language stand on it."""
