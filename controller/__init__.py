"""A Kubernetes operator that turns ArtifactRepository objects into repositories of a local OCI registry."""

__version__ = "0.1.0"
