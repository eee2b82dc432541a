"""Journal, group commit, ownership, parking and relay: durable entities with one writer each."""
