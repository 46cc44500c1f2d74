"""``eventbus make``: writes an event, a listener or a driver, with its test."""
