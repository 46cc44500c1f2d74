"""``eventbus demo``: the whole system with traffic, and an account of what became of it."""
