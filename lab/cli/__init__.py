"""What people see of a lab: its command line, its tables, and the demo."""
