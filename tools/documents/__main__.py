"""Write the pages that are made from the code: `make docs`."""

from documents import PAGES
from watcher.runtime.logs import configure_logs

configure_logs(level="critical", format_="auto")  # stories of trouble are made here, and none of it is real
for path, page in PAGES.items():
    path.write_text(page(), encoding="utf-8")
