"""What answers each address: one router a room."""
