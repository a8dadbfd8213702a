"""`watcher init` and `watcher schema`: a starter file, a signing secret, and the JSON Schema of the configuration."""

import base64
import json
import re
import secrets
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from watcher.cli.console import console_on, say
from watcher.cli.shell import put, write_file
from watcher.config.document import is_safe_key, quoted
from watcher.config.models import Settings
from watcher.domain.envelope import Json
from watcher.domain.errors import UsageError
from watcher.sinks.webhook import SECRET_PREFIX

_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_NOTES = ("title", "description", "default", "examples")


def init(
    path: Annotated[Path | None, typer.Argument(help="The file to write, or its folder.", show_default=False)] = None,
    *,
    customer: Annotated[
        str | None,
        typer.Option(help="Write NAME.yaml, for one customer in a folder.", metavar="NAME", show_default=False),
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Print a new signing secret for a webhook; write no file.")
    ] = False,
) -> None:
    """Write a commented starter file, watcher.yaml by default.

    The file still needs your key, and your pipeline's id instead of the example's. With --customer it is a file for one
    customer, beside others in a folder that is the configuration: an account, a watch and a sink of its own. Exit code
    2: the file exists already, or cannot be written.

    Examples:
      watcher init --customer acme /etc/watcher
      export OPS_WEBHOOK_SECRET=$(watcher init --secret)

    """
    if secret:
        put(f"{SECRET_PREFIX}{base64.b64encode(secrets.token_bytes(32)).decode()}")
        return
    path = path or Path()
    if path.is_dir():
        path /= f"{customer or 'watcher'}.yaml"
    text = files("watcher.cli.commands").joinpath("customer.yaml" if customer else "starter.yaml").read_text("utf-8")
    variables, config = "CLERK_API_KEY", path
    if customer:
        if not is_safe_key(customer):
            raise UsageError(f"--customer: {quoted(customer)} is not a name; use 1 to 64 of A-Z a-z 0-9 _ . -")
        text = text.replace("VARIABLE", re.sub(r"\W", "_", customer.upper())).replace("NAME", customer)
        variables, config = " and ".join(re.findall(r"\$\{(\w+)\}", text)), path.parent
    write_file(path, text)
    next_ = f"put in your pipeline's id, export {variables}, watcher check --config {config}"
    say(console_on(sys.stderr), ("✓ ", "green"), f"wrote {path}. Next: {next_}", wrap=False)


def schema() -> None:
    """Print the JSON Schema of the configuration file.

    With it, editors complete and check the file while you type. Save it beside the file, and begin the file with:
    # yaml-language-server: $schema=watcher.schema.json

    Examples:
      watcher schema > watcher.schema.json
      watcher schema | jq '.properties.polling'

    """
    put(json.dumps(config_schema(), indent=2, ensure_ascii=False))


def config_schema() -> Json:
    """Return the JSON Schema of a configuration file, whose values may hold variables."""
    schema = Settings.model_json_schema()
    schema |= {"title": "clerk-watcher", "description": "The configuration file of clerk-watcher."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_with_variables(schema)}


def _with_variables(node: Any, of: str = "") -> Any:
    """Return a schema that also takes `${NAME}` for a number, an enum value or an id; `of` is the key above `node`."""
    if isinstance(node, list):
        return [_with_variables(each) for each in node]
    if not isinstance(node, dict) or of in {*_NOTES, "propertyNames"}:
        return node
    if of in {"properties", "$defs"}:
        return {name: _with_variables(each) for name, each in node.items()}
    kept = {key: _with_variables(value, key) for key, value in node.items()}
    if "$ref" in kept:
        kept.pop("default", None)  # the default of a block is written in seconds; each of its keys has its own default
    if not ({"enum", "format"} & node.keys() or node.get("type") in {"integer", "number", "boolean"}):
        return kept
    notes = {key: kept.pop(key) for key in _NOTES if key in kept}
    return {**notes, "anyOf": [kept, _VARIABLE]}
