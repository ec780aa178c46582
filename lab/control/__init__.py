"""A lab's control socket: where it is, what is said over it, and how."""
