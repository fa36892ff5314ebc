"""Tests of single parts; each takes less than two seconds."""
