"""The generated contracts of Tierflow: messages and gRPC stubs."""
