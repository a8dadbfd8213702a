"""`watcher check`: it validates the file, prints the plan, and with `--online` tries keys, sinks, store and more."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from watcher.cli.check.output import (
    print_plan,
    print_plan_rows,
    print_trial,
    print_trial_rows,
    report_lines,
    silence_lines,
)
from watcher.cli.check.plan import plan
from watcher.cli.check.trials import try_everything
from watcher.cli.check.who import print_who, print_who_rows, rows_of
from watcher.cli.config_loading import WARNING, load_or_exit, print_problems
from watcher.cli.console import console_on, say
from watcher.cli.shell import ConfigOption, put_error
from watcher.config.checks import find_warnings
from watcher.config.document import Document
from watcher.config.files import find_config
from watcher.config.loader import load_config, require_usable
from watcher.domain.errors import Exit
from watcher.runtime.clock import Clock
from watcher.runtime.logs import configure_logs


def check(
    file: Annotated[Path | None, typer.Argument(help="The YAML file, as with --config.", show_default=False)] = None,
    *,
    config: ConfigOption = None,
    online: Annotated[
        bool, typer.Option("--online", help="Poll each watch once; connect to sinks and store; ping the heartbeat.")
    ] = False,
    send: Annotated[bool, typer.Option("--send", help="As --online, and send each sink a test message.")] = False,
    who: Annotated[
        str | None,
        typer.Option(
            "--who",
            metavar="[PIPELINE]",
            help="Print which sinks would be sent what of each watch, or of this one, instead of the plan.",
            show_default=False,
        ),
    ] = None,
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Only warn of unset variables and absent secret files: for CI.")
    ] = False,
) -> None:
    """Validate the file and print the plan.

    The plan says how many requests per second each account needs, its budget, and how soon changes are seen. Piped, the
    plan is a tab-separated row per account, in seconds and requests per second. With --online a second table shows what
    was tried: a row per key and sink, one per watch that does not work, and one each for a PostgreSQL store, the
    heartbeat, which is pinged once, and http.listen. A watch with the rule slow has a row that says how often the rule
    would have reported the successes on the first page of the list: at most 50, and those that were paused, too. No
    message is sent without --send, and nothing is written into a store. The requests to Clerk Chat keep to rate_limit,
    and are added to those of a daemon with the same key. Likely mistakes are warnings on stderr. The plan ends with the
    silences, and with when each report is due next; piped, they are notes on stderr. With --who a table says for each
    watch which sinks would be sent its failures, openings and closings now, when, or why not, after events, match,
    after, groups and the silences of the file; piped, it is a row per event and sink. Exit codes: 2 the file cannot be
    used, 4 what was tried does not work, 5 a pipeline is not known.

    Examples:
      watcher check watcher.yaml --without-secrets
      watcher check --who sales

    """
    if file is not None and config is not None:
        raise typer.BadParameter("FILE and --config are the same; give one of them")
    if without_secrets and (online or send):
        raise typer.BadParameter("--online and --send need the secrets; leave out --without-secrets")
    path = find_config(file or config, environ=os.environ)
    document = Document(file=str(path), without_secrets=without_secrets)
    settings = load_or_exit(partial(load_config, path, environ=os.environ, document=document))
    require_usable(settings)
    now = Clock().now()
    notes = [("‖ ", line) for line in silence_lines(settings, at=now)]
    notes += [("→ ", line) for line in report_lines(settings, at=now)]
    if who is not None:
        rows = rows_of(settings, who, at=now)
        print_who(rows, console=console_on(sys.stdout)) if sys.stdout.isatty() else print_who_rows(rows)
    elif sys.stdout.isatty():
        print_plan(plan(settings), settings, file=str(path), console=console_on(sys.stdout))
        for sign, line in notes:
            say(console_on(sys.stdout), (sign, "yellow"), line)
    else:
        print_plan_rows(plan(settings))
        for _, line in notes:
            put_error(f"note: {line}")
        for each in plan(settings):
            if each.advice:
                put_error(f"warning: {each.account}: {each.advice}")
    warnings = find_warnings(document, settings)
    if sys.stderr.isatty():
        print_problems(warnings, sources=document.sources, console=console_on(sys.stderr), word=WARNING)
    else:
        for warning in warnings:
            put_error(f"warning: {warning}")
    if online or send:
        configure_logs(level="error", format_="auto")  # sinks log to stderr, as in the daemon
        trials = asyncio.run(try_everything(settings, clock=Clock(), send=send))
        if sys.stdout.isatty():
            for trial in trials:
                print_trial(trial, console=console_on(sys.stdout))
        else:
            print_trial_rows(trials)
        if codes := {trial.code for trial in trials} - {Exit.DONE}:
            raise typer.Exit(min(codes))
