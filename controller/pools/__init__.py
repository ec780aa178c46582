"""What is written about pools and advertisements."""
