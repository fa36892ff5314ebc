"""The documentation, and what keeps it true (see :mod:`docs.generate`)."""
