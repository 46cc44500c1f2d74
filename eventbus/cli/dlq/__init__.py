"""``eventbus dlq``: work the dead letters; one file for each command."""
