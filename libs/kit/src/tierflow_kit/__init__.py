"""For people who write flows: rehearse them on a virtual clock with faked handlers, lint them, draw them, compare them. Needs no server."""
