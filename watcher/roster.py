"""Which executions one account watches: those the configuration names, until they end. Knows no request and no rule."""

from collections.abc import Iterable, Mapping

from watcher.agenda import Agenda, Entry
from watcher.metrics import AccountMetrics, open_label
from watcher.models import Known, Watch


class Roster:
    """The watched executions that have not ended, each one entry of the agenda, and how many are in which status.

    `found_count` counts those that are not lost.
    """

    def __init__(self, agenda: Agenda, metrics: AccountMetrics) -> None:
        """Start with nobody."""
        self.found_count = 0
        self._agenda = agenda
        self._metrics = metrics
        self._entries: dict[str, Entry] = {}
        for gauge in metrics.open.values():
            gauge.set(0)

    def strangers(self, watches: Iterable[Watch]) -> list[str]:
        """Return the executions of these watches that are not watched yet, or ended."""
        return [execution for watch in watches for execution in watch.executions if execution not in self._entries]

    def apply(
        self, watches: Iterable[Watch], *, strangers: Iterable[str], recorded: Mapping[str, Known], now: float
    ) -> None:
        """Watch what these watches name and nothing else. `recorded` is what the store knows of the strangers in it.

        Those that ended are not watched; the others are due at `now`, those first that were looked at longest ago.
        """
        wanted = {execution: watch for watch in watches for execution in watch.executions}
        for execution, entry in list(self._entries.items()):
            self._keep_or_drop(entry, wanted.get(execution))
        new = [_entry(execution, wanted[execution], recorded.get(execution), now=now) for execution in strangers]
        for entry in sorted(new, key=lambda entry: entry.looked_at):
            if entry.known.ended_at is None:
                self._enter(entry, now=now)

    def move(self, entry: Entry, known: Known) -> None:
        """Note what is known of an entry from now on."""
        self._metrics.moved(open_label(entry.known), open_label(known))
        self.found_count += (known.lost is None) - (entry.known.lost is None)
        entry.known = known

    def leave(self, entry: Entry) -> None:
        """Forget an entry that is nobody's: it ended, or is no longer watched."""
        del self._entries[entry.known.execution]
        self.found_count -= entry.known.lost is None
        self._metrics.open[open_label(entry.known)].dec()

    def _enter(self, entry: Entry, *, now: float) -> None:
        self._entries[entry.known.execution] = entry
        self.found_count += entry.known.lost is None
        self._metrics.open[open_label(entry.known)].inc()
        self._agenda.put(entry, due_at=now)

    def _keep_or_drop(self, entry: Entry, watch: Watch | None) -> None:
        """Hand an entry its watch as it now is. One in flight leaves when it is back: no second look may go out."""
        entry.unwatched = watch is None
        entry.watch = watch or entry.watch
        if entry.unwatched and entry.queued:
            self._agenda.take(entry)
            self.leave(entry)


def _entry(execution: str, watch: Watch, recorded: Known | None, *, now: float) -> Entry:
    known = recorded or Known(execution, watch.pipeline)
    return Entry(known, watch, asked_at=now, looked_at=known.looked_at)
