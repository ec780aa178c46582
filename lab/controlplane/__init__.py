"""The real control plane: etcd, kube-apiserver and kube-controller-manager on ``cp``, kube-proxy on every node.

What is Kubernetes' own is left at its defaults: admission plugins, RBAC, the controllers. The lab is what Kubernetes
leaves to others: the kubelets (``lab.standins.real``), the certificates, and a forwarder that lets programs outside
reach the API server, which can listen only on ``cp``.
"""
