"""The registry side: a small OCI distribution client and the port of ``LocalArtifactRegistry`` on top of it."""
