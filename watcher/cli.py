def main() -> None:
    """Run."""
