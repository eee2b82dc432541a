"""Fuzzing of the running services: messages made from their descriptors, seeded from valid ones, mutated, and sent to every RPC of all three tiers.

Everything that is random comes from a seed: what a failing case prints is enough to see it again.
"""
