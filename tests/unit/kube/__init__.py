"""Tests of the Kubernetes side with fakes; tests/cluster uses a real API server."""
