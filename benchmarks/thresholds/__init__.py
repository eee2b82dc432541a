"""Figures with a bound that Tierflow has promised to keep: `make thresholds`."""
