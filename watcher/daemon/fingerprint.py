"""Stands for a whole configuration, so that replicas can tell whether they go by the same one."""

import json
from hashlib import blake2b

from watcher.config.models import Settings


def fingerprint_of_settings(settings: Settings) -> str:
    """Return what only an equal configuration has, but for its secrets, and for what may differ between replicas.

    Of what is written there alone: a later version has more keys, and other defaults.
    """
    content = settings.model_dump(mode="json", exclude_unset=True, warnings=False)
    content.get("store", {}).pop("url", None)
    of_all = {key: value for key, value in content.items() if key not in {"http", "log"}}
    return blake2b(json.dumps(of_all, sort_keys=True).encode(), digest_size=16).hexdigest()
