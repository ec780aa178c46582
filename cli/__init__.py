"""``berthlb``: the commands that a person runs beside a cluster."""
