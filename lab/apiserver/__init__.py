"""A small Kubernetes API server that starts in a second and needs nothing.

It serves what BerthLB and its tests use, with Kubernetes' own semantics: CRUD with resourceVersion conflicts, paged
lists consistent at one version, watches with bookmarks and ``sendInitialEvents``, the status subresource, JSON merge
patch, label and field selectors, finalizers, owner references, Service defaults with ClusterIPs and node ports, and
custom kinds validated and defaulted by their structural schemas.

What it does not do: kubectl, OpenAPI, discovery, tables, YAML bodies, strategic merge, JSON patch, server-side apply,
dry runs, strict field validation, generated names, lists of a version that the client chooses (they are of the
present), CEL, authentication, RBAC, deleting namespaces or collections, graceful deletion of Pods, foreground deletion
(all deletion of dependents is at once), expiry of Events, health check node ports, and the validation of built-in
kinds beyond their shape, names and what is usual to get wrong in a Service.

    store      what exists at which version, and the bounded past
    registry   create, update, patch, delete: from request to store
    services   defaults, ClusterIPs and node ports of Services
    families   which families a Service has
    schema     structural schemas: of custom kinds, and of Services
    watch      one watch and its bounded queue
    server     HTTP
    faults     errors, latency and lag on purpose: ``POST /lab/faults`` takes a list of rules and adds them, ``GET``
               lists those in force, ``DELETE`` removes all
    embedded   the server in a thread of a test

``python -m lab.apiserver --fd N``, N a listening socket that it inherits, or ``EmbeddedApi``
from ``embedded``.
"""
