"""`python -m watcher` and the command `watcher`: the entry point, which imports as little as possible."""

from watcher.runtime.signals import end_at_signals


def main() -> None:
    """Run the command line. A signal ends the program cleanly, even one that arrives during the imports."""
    end_at_signals()
    # Here and not above: it takes half a second, and a signal meanwhile would be a traceback.
    from watcher.cli.main import main as run_command_line  # noqa: PLC0415

    run_command_line()


if __name__ == "__main__":
    main()
