"""The environment that tests pass on to programs."""

import os


def outside_make() -> dict[str, str]:
    """Return the environment without the flags, variables and job server of a make that runs these tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "GNUMAKE"))}
