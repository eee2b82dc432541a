"""The pure core of Tier 3: which attempts are known, whose they are, what is held, who may use how many slots."""
