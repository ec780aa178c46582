"""A whole cluster on one Linux machine, made of namespaces: for the demo, the tests and the benchmarks.

The doors are ``launch.up``, which makes a lab, and ``client.Lab``, through which everything is done to it. The rooms,
each of which may use those after it:

    cli           what people see: the command line, its tables, the demo
    metallb       MetalLB itself in a lab
    objects       manifests, workloads and other objects in a lab's API
    measuring     what clients notice of a fault, and the figures
    launch        how a lab is made
    readiness     how one waits until a lab is ready
    client        one request to a lab that is up
    keeper        the process that is the lab
    apiserver     a small API server of the lab's own
    standins      what stands in for kubelet, kube-proxy and Kubernetes' controllers
    controlplane  Kubernetes' own programs instead of those two
    machines      network namespaces, the LAN, processes and their rights
    control       the control socket, and what is said over it
    assets        the programs of a control plane, found or built
    shipped       what ``crds/`` and ``deploy/`` say
    layout        the hosts and their addresses
    errors        refusals, each with its exit code
"""
