"""The tierflow command."""
