"""The command line: arguments, signals, exit codes. What a command does is elsewhere."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from watcher.app import Started
from watcher.app import run as run_daemon
from watcher.config.load import find_config, load_config
from watcher.config.problems import ConfigProblemsError
from watcher.demo import demonstrate
from watcher.errors import Exit, WatcherError
from watcher.logs import configure_logs
from watcher.simulator.simulate import SimulateOptions
from watcher.simulator.simulate import simulate as run_simulator
from watcher.simulator.world import Order

app = typer.Typer(
    name="watcher",
    help="Know when a Clerk Chat execution starts, pauses, succeeds or fails.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Interruption:
    """The first SIGINT or SIGTERM asks the program to stop; a second one ends it at once."""

    def __init__(self) -> None:
        """Listen on the running event loop."""
        self.stop = asyncio.Event()
        self.signal: signal.Signals | None = None
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, self._receive, signum)

    def _receive(self, signum: signal.Signals) -> None:
        if self.signal is not None:
            os._exit(128 + signum)
        self.signal = signum
        self.stop.set()


def _version(asked: bool) -> None:  # noqa: FBT001 (Typer calls it with the flag)
    if asked:
        typer.echo(f"clerk-watcher {version('clerk-watcher')}")
        raise typer.Exit


@app.callback()
def watcher(
    *,
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Know when a Clerk Chat AI-agent execution starts, pauses, succeeds or fails, within seconds."""


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="The YAML file. Else $WATCHER_CONFIG, ./watcher.yaml, /etc/watcher/watcher.yaml.",
        ),
    ] = None,
) -> None:
    """Watch, and tell every change: one JSON event per line on stdout, and to the webhooks that asked for it.

    Logs go to stderr. Ctrl-C and SIGTERM let what is in flight finish, at most 8 s; a second signal ends it at once.

    Examples:  watcher run      watcher run --config /etc/watcher/watcher.yaml | jq .
    """
    gc.disable()  # what is read at the start stays: to search it for garbage costs a quarter of the start
    settings = load_config(find_config(config, environ=os.environ), environ=os.environ)
    configure_logs(level=settings.log.level, format_=settings.log.format)
    if not settings.watch:
        raise NothingToWatchError("nothing to watch: add a watch entry with a pipeline and its executions")
    _run(lambda interruption: run_daemon(settings, stop=interruption.stop, started=_spare_the_collector))


def _spare_the_collector(_started: Started) -> None:
    """Collect garbage from here on, passing over all that is there: 100,000 executions would take 0.2 s each time."""
    gc.freeze()
    gc.enable()


class NothingToWatchError(WatcherError):
    """The file names no execution."""

    exit_code = Exit.USAGE


@app.command()
def demo(
    *,
    forever: Annotated[bool, typer.Option("--forever", help="Go on until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The real events instead of people's lines.")] = False,
) -> None:
    """Show the whole thing at work: a simulated API, the daemon, and a receiver that checks signatures.

    Needs no key and leaves nothing behind. Takes about 30 seconds.

    Examples:  watcher demo      watcher demo --json | jq .type
    """
    configure_logs(level="error", format_="auto")
    plain = as_json or not sys.stdout.isatty()
    _run(lambda interruption: demonstrate(stop=interruption.stop, forever=forever, as_json=plain))


@app.command("simulate")
def simulate_command(  # noqa: PLR0913 (one parameter per option)
    *,
    port: Annotated[int, typer.Option(help="0 is any free one.")] = 9000,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    scenario: Annotated[str, typer.Option(help="calm, harsh, …: how it misbehaves.")] = "calm",
    seed: Annotated[int, typer.Option(help="The same seed tells the same stories under the same ids.")] = 7,
    pipelines: Annotated[int, typer.Option(min=1)] = 5,
    executions: Annotated[int, typer.Option(min=1, help="Per pipeline.")] = 8,
    time_scale: Annotated[float, typer.Option(min=0.001, help="Tells stories so many times as fast.")] = 1.0,
    rate_limit: Annotated[float | None, typer.Option(help="Requests per second and key; more get a 429.")] = None,
    order: Annotated[Order, typer.Option(help="Which executions a list shows first.")] = Order.NEWEST,
    write_config: Annotated[
        Path | None, typer.Option(help="Write a configuration that watches all of it, and go on.")
    ] = None,
) -> None:
    """Serve a fake Clerk Chat API whose executions live, pause, succeed and fail.

    Examples:  watcher simulate --write-config watcher.yaml      watcher simulate --scenario harsh --seed 3
    """
    options = SimulateOptions(
        host=host,
        port=port,
        scenario=scenario,
        seed=seed,
        pipelines_count=pipelines,
        executions_count=executions,
        time_scale=time_scale,
        rate_limit=rate_limit,
        order=order,
    )
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731, T201 (it says what it serves)
    interruption = _run(
        lambda interruption: run_simulator(options, stop=interruption.stop, say=say, config_path=write_config)
    )
    if interruption.signal is not None:
        raise typer.Exit(128 + interruption.signal)


def _run(work: Callable[[Interruption], Awaitable[object]]) -> Interruption:
    """Run something that stops when it is interrupted; return how it was."""

    async def interruptible() -> Interruption:
        interruption = Interruption()
        await work(interruption)
        return interruption

    return asyncio.run(interruptible())


def main() -> None:
    """Run a command; a failure with a message for the user is that message and its exit code."""
    try:
        app()
    except WatcherError as error:
        lines = str(error) if isinstance(error, ConfigProblemsError) else f"error: {error}"
        print(lines, file=sys.stderr)  # noqa: T201 (this is the command line)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 (the one in main: the text of an unknown error may hold data)
        print(f"error: {type(error).__name__} ended the program; this is a bug", file=sys.stderr)  # noqa: T201
        sys.exit(Exit.FAILED)
