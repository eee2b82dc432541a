"""An example of some size: a report on a directory of source code, made by a swarm."""
