"""Which address a Service gets: what the pools have to give, and who has what of it."""
