"""The keeper: the process that is a lab, how it starts, and what it does for clients and stand-ins."""
