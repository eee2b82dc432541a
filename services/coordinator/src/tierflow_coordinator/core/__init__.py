"""The pure core of Tier 1: what a swarm is, what may be done to it, what follows. No input or output, no clock, no chance."""
