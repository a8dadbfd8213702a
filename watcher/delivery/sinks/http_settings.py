"""What the blocks of all sinks that post over HTTP have: which connections they may open."""

from pydantic import Field

from watcher.delivery.sinks.http_post import ConnectionRules
from watcher.delivery.sinks.remote_settings import RemoteSettings


class HttpSettings(RemoteSettings):
    """Common to all sinks with a `Poster`, which is given what `connection_rules` returns."""

    allow_private: bool = Field(
        default=True,
        description="`false` refuses a target that resolves to an address of this machine or of a private network. "
        "See [sinks.md](sinks.md#connections).",
        examples=["false"],
    )

    def connection_rules(self) -> ConnectionRules:
        """Return how its `Poster` is to connect."""
        return ConnectionRules(allow_private=self.allow_private)
