"""What both daemons have: command line, log, status page, and how they begin and end."""
