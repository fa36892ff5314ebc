"""How large the campaign is (``make campaign``), and how its figures are told."""

import os
import re
from collections.abc import Callable

from tests.settings import FULL

SEED = int(os.environ.get("CAMPAIGN_SEED") or 20260101)
"""What all that is random comes from; printed with the figures."""

SPECS = int(os.environ.get("CAMPAIGN_SPECS") or (50_000 if FULL else 300))
"""How many hostile objects are tried."""

SECONDS = float(os.environ.get("CAMPAIGN_MINUTES") or (10 if FULL else 0.4)) * 60
"""How long faults are injected at random."""

LIMIT = 1200 + SECONDS * 3 + SPECS / 10 if FULL else 600
"""What a test of the campaign may take, in seconds."""

LENIENT = {"PYTHONWARNINGS": "ignore"}
"""The environment of operators that are stopped in the midst of it. Where warnings are errors, as in other tests,
uvloop cannot close what a connection attempt that was cancelled has left, and raises instead."""

Record = Callable[[str, object], None]
"""pytest's ``record_property``: what is recorded is printed as a table in the end."""


def defects(log: str) -> list[str]:
    """Return the entries of a log with a trace in which our code is; kopf leaves some that are its own."""
    entries = re.split(r"\n(?=\d{4}-\d\d-\d\d )", log)
    return [entry for entry in entries if "unexpectedly" in entry or ("Traceback" in entry and "/controller/" in entry)]
