"""A Kubernetes operator that turns ArtifactRepository objects into repositories of a local OCI registry."""

__version__ = "0.1.0"

NAME = "artifact-repository-controller"
"""What this operator calls itself: in events, as a field manager, as a client, and as the name of its Lease."""

USER_AGENT = f"{NAME}/{__version__}"
"""``User-Agent`` of all requests."""
