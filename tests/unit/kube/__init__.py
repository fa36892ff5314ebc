"""Tests of the Kubernetes side against fakes; the real API server is in tests/cluster."""
