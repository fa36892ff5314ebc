"""The Kubernetes side: the watch (kopf), the API calls (kubernetes), the lease."""
