"""Stands for a configuration, or for a sink's block of it, so that it can be told whether two are the same."""

import json
from collections.abc import Mapping
from hashlib import blake2b

from pydantic import SecretStr

from watcher.config.models import AnySink, Settings


def fingerprint_of_settings(settings: Settings) -> str:
    """Return what only an equal configuration has, but for its secrets, and for what may differ between replicas.

    Of what is written there alone: a later version has more keys, and other defaults.
    """
    content = settings.model_dump(mode="json", exclude_unset=True, warnings=False)
    content.get("store", {}).pop("url", None)
    of_all = {key: value for key, value in content.items() if key not in {"http", "log"}}
    return blake2b(json.dumps(of_all, sort_keys=True).encode(), digest_size=16).hexdigest()


def fingerprint_of_key(api_key: SecretStr) -> str:
    """Stand for an API key where replicas see which of them spends its budget.

    Nobody finds out a key from it, nor by trying: keys are long and random. It shows no more than that a key which
    somebody has already is used here.
    """
    return blake2b(api_key.get_secret_value().encode(), digest_size=16, person=b"watcher api key").hexdigest()


def fingerprint_of_sink(settings: AnySink) -> str:
    """Stand for a sink's block without giving any of it away: a change of it ends `disabled`.

    For what is written there alone: a later version has more keys, and other defaults.
    """
    return blake2b(repr(_revealed(settings.model_dump(exclude_unset=True))).encode(), digest_size=16).hexdigest()


def _revealed(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_revealed(item) for item in value]
    return value
