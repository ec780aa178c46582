"""What both daemons read from Kubernetes, and nothing that only one of them needs."""
