import typer


def demo() -> None:
    """Demo."""
