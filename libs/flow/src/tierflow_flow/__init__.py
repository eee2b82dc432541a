"""The flow language: definitions, parsing, checking, expressions."""
