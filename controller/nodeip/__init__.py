"""Node-IP mode: which addresses of nodes a Service gets from a NodeIPPool, and why a node is left out.

1. ``nodes`` reads what a Node offers, and why its addresses may not be shown.
2. ``liveness`` says which nodes a majority of the speakers do not hear.
3. ``damping`` delays the nodes that join, the longer the more often they have left.
4. ``guards`` says which ports, addresses and proxies are forbidden.
5. ``choice`` puts it together: once for a pool whenever a node changes (``PoolNodes``), then for each Service.
"""
