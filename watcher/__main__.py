"""`python -m watcher` and the command `watcher`: where every start begins, with next to nothing imported."""

from watcher.runtime.signals import end_at_signals


def main() -> None:
    """Run the command line; a signal ends the program cleanly from its first moment on."""
    end_at_signals()
    # Here and not above: it takes half a second, and a signal meanwhile would be a traceback.
    from watcher.cli.main import main as run_command_line  # noqa: PLC0415

    run_command_line()


if __name__ == "__main__":
    main()
