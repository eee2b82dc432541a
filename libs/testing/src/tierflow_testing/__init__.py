"""Postgres, NATS and the three services as real processes for tests and development; the auditor."""
