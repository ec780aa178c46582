"""What one Service should have, what is written about it, and when."""
