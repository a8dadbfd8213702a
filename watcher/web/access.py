"""Who may ask what: by the token or a session, under our own names, from our own pages."""

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from watcher.config.models import Settings


def access(settings: Callable[[], Settings]) -> Middleware:
    """Return what lets a request through, or refuses it. `settings` are those of now."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request)

    return check
