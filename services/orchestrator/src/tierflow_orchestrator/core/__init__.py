"""The pure core of Tier 2: what a run is and how it moves. No input or output, no clock, no chance."""
