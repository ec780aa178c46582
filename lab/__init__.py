"""A whole cluster on one Linux machine, made of namespaces: for the demo, the tests and the benchmarks."""
