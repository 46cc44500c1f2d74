"""What keeps the listeners of a process fed, alive and observed."""
