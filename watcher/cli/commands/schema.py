"""`watcher schema`: the JSON Schema of the configuration file."""

import json

from watcher.cli.stdio import put
from watcher.config.json_schema import config_schema

EXAMPLES = (
    "watcher schema > watcher.schema.json",
    "watcher schema | jq '.properties.polling'",
)


def schema() -> None:
    """Print the JSON Schema of the configuration file.

    With it, editors complete and check the file while you type. Save it beside the file, whose first line is then:
    # yaml-language-server: $schema=watcher.schema.json
    """
    put(json.dumps(config_schema(), indent=2, ensure_ascii=False))
