"""Who answers for an address, and the answers: one speaker runs on every node, as two processes."""
