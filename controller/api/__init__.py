"""API types, and the pure functions that decide on targets and status."""
