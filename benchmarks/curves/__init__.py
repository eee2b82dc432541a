"""How Tierflow's figures change with load, size, time and number: `make curves`."""
