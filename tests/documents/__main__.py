"""Write the pages that are made from the code: `make docs`."""

from documents import PAGES

for path, page in PAGES.items():
    path.write_text(page(), encoding="utf-8")
