"""Reconciliation: from keys in the work queue to repositories and status. Independent of kopf, HTTP and Kubernetes."""
