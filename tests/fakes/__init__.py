"""Stand-ins that implement a seam; the contract suites hold them against the real things."""
