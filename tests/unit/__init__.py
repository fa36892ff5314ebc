"""Unit tests: fast, and without servers."""
