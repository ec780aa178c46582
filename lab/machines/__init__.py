"""The machines of a lab: network namespaces on one LAN, and processes in them with the rights of containers."""
