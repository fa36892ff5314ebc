"""Tests of the registry side without a real registry."""
