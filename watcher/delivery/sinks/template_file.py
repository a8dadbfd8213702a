"""A file with a template of the operator's own, as it stands in a webhook's settings. What it holds may be secret."""

from dataclasses import dataclass, field

from watcher.delivery.sinks.template import Template, TemplateFailure


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A file: its path, as the configuration has it, and what it holds.

    jinja2 is imported only once there is one: that takes time, and most configurations have none.
    """

    path: str
    source: str = field(repr=False)

    def check(self, *, with_group: bool) -> TemplateFailure | None:
        """Return what is wrong with it: as a template, or with what it makes of examples."""
        from watcher.delivery.sinks.own_template import check  # noqa: PLC0415 (it imports jinja2)

        return check(self.source, with_group=with_group)

    def template(self, *, timeout_s: float) -> Template:
        """Return what makes messages by it, once it is checked."""
        from watcher.delivery.sinks.own_template import OwnTemplate  # noqa: PLC0415 (it imports jinja2)

        return OwnTemplate(self.source, timeout_s=timeout_s)
