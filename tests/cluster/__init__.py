"""Tests on a real control plane and a real registry, with the operator as a process of its own."""
