"""One semantic each: `play` notes what happens, `HISTORY` is what must have happened."""
