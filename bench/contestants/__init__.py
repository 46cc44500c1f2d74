"""Who is compared: one module each, with the cases that it takes part in."""
