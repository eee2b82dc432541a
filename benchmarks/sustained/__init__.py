"""A mixed load for as long as one likes, watched all the while, with a verdict at the end: `make load`."""
