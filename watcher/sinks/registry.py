"""The kinds of sinks. A new kind is a file of its own and a line here."""

from collections.abc import Mapping

from watcher.sinks.apprise import AppriseSettings
from watcher.sinks.email import EmailSettings
from watcher.sinks.settings import SinkSettings
from watcher.sinks.slack_bot import SlackBotSettings
from watcher.sinks.stdout import StdoutSettings
from watcher.sinks.webhook import WebhookSettings

SINK_KINDS: Mapping[str, type[SinkSettings]] = {
    "stdout": StdoutSettings,
    "webhook": WebhookSettings,
    "slack_bot": SlackBotSettings,
    "email": EmailSettings,
    "apprise": AppriseSettings,
}
"""The settings of each kind of sink, by the word in `type`."""
