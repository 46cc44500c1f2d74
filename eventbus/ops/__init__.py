"""What an operator does, as functions that the command line calls."""
