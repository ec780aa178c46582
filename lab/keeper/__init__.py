"""The keeper: the process that is a lab, and how it starts."""
