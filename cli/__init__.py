"""``berthlb``: what a person runs beside a cluster."""
