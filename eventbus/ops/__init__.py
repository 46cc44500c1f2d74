"""What an operator does, as functions; the command line and the console call these."""
