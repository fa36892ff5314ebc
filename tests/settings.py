"""Settings of the test suite, from the environment."""

import os

FULL = os.environ.get("FAULTS") == "full"
"""Whether fault tests and the campaign run in their full form (``FAULTS=full make test``), which takes much longer."""
