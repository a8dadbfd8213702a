"""The pages, rendered by the server from what the API answers; `templates/` and `static/` are beside this file."""

from collections.abc import Callable, Sequence

from aiohttp import web

from watcher.web.console import Console


def page_routes(console: Callable[[], Console | None]) -> Sequence[web.RouteDef]:
    """Return the routes of pages and of what they load."""
    return []
