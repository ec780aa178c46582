"""The controller assigns addresses from pools to Services and writes them into their status; one decides for a cluster.

``daemon`` does all of the I/O and owns the threads. Everything else decides, on values and with time as an argument:
``allocation`` which address, ``services`` what one Service should have and what is written about it, ``pools`` what is
written about pools, ``leadership`` which of several replicas decides, ``orphans`` which status objects are deleted.
"""
