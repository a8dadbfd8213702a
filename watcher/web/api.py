"""The API under `/api/v1`: one table of routes, from which docs/api.md and the OpenAPI document are made.

A handler takes the console and what was asked, and returns a model of `models`. The pages call the same handlers.
"""

from collections.abc import Callable, Sequence

from aiohttp import web

from watcher.web.console import Console


def api_routes(console: Callable[[], Console | None]) -> Sequence[web.RouteDef]:
    """Return the routes. `console` returns `None` while the store is not open: then they answer 503."""
    return []
