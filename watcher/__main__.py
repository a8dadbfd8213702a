"""`python -m watcher` and the command `watcher`: the entry point, which imports as little as possible."""

import sys

from watcher.runtime.signals import end_at_signals


def main() -> None:
    """Run the command line. A signal ends the program cleanly, even one that arrives during the imports."""
    end_at_signals()
    # The imports stand here and not above, because a signal meanwhile would be a traceback.
    match sys.argv[1:]:
        case ["health"] | ["health", "-c" | "--config", _] as words:  # without Typer: a container runs it all the time
            from watcher.cli.local_daemon import tell_health  # noqa: PLC0415

            tell_health(*words[2:])
        case _:
            from watcher.cli.main import main as run_command_line  # noqa: PLC0415

            run_command_line()


if __name__ == "__main__":
    main()
