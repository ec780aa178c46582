"""Faults of a lab: what each does, what undoes it, what is promised, and what a client saw of it."""
