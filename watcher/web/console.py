"""What the API and the pages work with: the configuration, the store, and what the daemon does for them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from watcher.config.models import Settings
from watcher.runtime.clock import Clock
from watcher.store.console_store import ConsoleStore
from watcher.store.operator_store import OperatorStore
from watcher.web.models import Need, TestResult


@dataclass(frozen=True, slots=True, eq=False)
class Console:
    """One of each in a process, once its store is open.

    `troubles` are those of the daemon itself: a refused reload, a store that takes no writes. `test_sink` sends a test
    message to a sink of the configuration. `changed` has this process look at once for silences and actions.
    """

    settings: Callable[[], Settings]
    store: ConsoleStore
    operator: OperatorStore
    clock: Clock
    troubles: Callable[[], Sequence[Need]]
    test_sink: Callable[[str], Awaitable[TestResult]]
    changed: Callable[[], None]
