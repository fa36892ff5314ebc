"""The tests. Two tiers: tests/unit needs nothing and is fast; the others start real servers."""
