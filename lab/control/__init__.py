"""The control socket of a lab: where it is, what is said over it, and how it is sent."""
