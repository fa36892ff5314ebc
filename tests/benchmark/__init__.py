"""How fast the operator is, against a peer and against the bare requests: ``python -m tests.benchmark``."""
