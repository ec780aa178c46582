"""Services and configuration in, Service status out: one controller allocates for the whole cluster."""
