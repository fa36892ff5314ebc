"""Tests of the API types and of the functions that decide on targets and status."""
