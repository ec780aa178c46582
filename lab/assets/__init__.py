"""The programs of a real control plane (etcd, kube-apiserver, kube-controller-manager, kube-proxy and kubectl), and
those that the tests install and watch BerthLB with: Helm and Prometheus.

``pinned`` says which releases. Each program is taken from the first place that has it:

1. the directory ``$KUBEBUILDER_ASSETS``, then ``PATH``; a program of another version is passed over, and that is said;
2. the user's cache (``$XDG_CACHE_HOME/berthlb``, otherwise ``~/.cache/berthlb``);
3. the same cache, after the release was built into it from Go modules that are pinned with their sums. Prometheus takes
   long to build: it comes from Debian's package, which is unpacked there and not installed.

A directory of the cache is complete or not there: it is made under another name, under a lock, and renamed when it is
whole. So nothing is built twice and nothing is ever half built. Of two commands that want the same thing at once, the
second waits for the first.
"""
