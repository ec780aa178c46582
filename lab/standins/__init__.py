"""What stands in for Kubernetes: kubelet, kube-proxy, and the controllers of EndpointSlices and of nodes' life."""
