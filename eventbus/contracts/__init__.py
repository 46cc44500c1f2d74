"""What is derived from the declared events."""
