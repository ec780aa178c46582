"""The real control plane: etcd, kube-apiserver and kube-controller-manager on ``cp``, kube-proxy on every node.

Kubernetes' own settings stay at their defaults: admission plugins, RBAC, the controllers. The lab adds what Kubernetes
leaves to others: the kubelets (``lab.standins.real``), the certificates, and a forwarder by which programs outside
reach the API server, which can listen only on ``cp``.
"""
