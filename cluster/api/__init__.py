"""How the Kubernetes API is asked: requests, live copies of its objects, and what can go wrong."""
