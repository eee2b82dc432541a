"""Schedules around their core: how they are stored, hosted, asked for and shown."""
