"""Fakes that implement an interface; contract suites compare them with the real implementations."""
