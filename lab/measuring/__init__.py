"""What clients notice of a fault: who answers for an address, which requests succeed, and the figures of both."""
