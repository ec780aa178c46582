"""Objects in a lab's API: manifests applied, workloads started, objects fetched."""
