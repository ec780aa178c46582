"""The command line: ``python -m lab``."""


def main() -> None:
    """Run one command."""
