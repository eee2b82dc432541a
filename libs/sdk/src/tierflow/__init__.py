"""What users import: client, flow builder, handlers, testing."""
