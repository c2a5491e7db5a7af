"""Draws `pull-request-<name>.png`: the reports on pull requests as comments in a browser.

    .venv/bin/python docs/draw_reports.py

Each picture carries the SHA-256 of the report that it shows, which a test compares.
"""

import hashlib
import io
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image, PngImagePlugin
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
REPORTS = HERE.parent / "tests/delivery/check_reports"
KEY = "report"  # of the digest, in a picture's text
WIDTH = 880
PAGE = """<!doctype html><meta charset="utf-8"><style>
body { margin: 16px; font: 14px/1.5 "Liberation Sans", sans-serif; color: #1f2328; }
article { border: 1px solid #d1d9e0; border-radius: 6px; }
header { padding: 8px 16px; background: #f6f8fa; border-bottom: 1px solid #d1d9e0;
  border-radius: 6px 6px 0 0; color: #59636e; }
header b { color: #1f2328; }
header span { padding: 0 7px; border: 1px solid #d1d9e0; border-radius: 2em; font-size: 12px; }
main { padding: 16px; }
main > :first-child { margin-top: 0; }
main > :last-child { margin-bottom: 0; }
main > * { margin: 0 0 16px; }
h1 { padding-bottom: 8px; border-bottom: 1px solid #d1d9e0; font-size: 28px; line-height: 1.25; }
table { border-collapse: collapse; }
th, td { padding: 6px 13px; border: 1px solid #d1d9e0; }
tr:nth-child(2n) td { background: #f6f8fa; }
code { padding: 2px 5px; border-radius: 6px; background: #eff1f3; overflow-wrap: anywhere;
  font: 12px "Liberation Mono", monospace; }
ul { padding-left: 28px; }
li + li { margin-top: 4px; }
summary { list-style-position: inside; }
</style>
<article><header><b>github-actions</b> <span>bot</span> commented</header><main>%s</main></article>
"""


def digest(report: Path) -> str:
    """Return the SHA-256 of a report."""
    return hashlib.sha256(report.read_bytes()).hexdigest()


def picture(report: Path) -> Path:
    """Return where the picture of a report is."""
    return HERE / f"pull-request-{report.stem}.png"


def main() -> None:
    """Draw all of them."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
        page = browser.new_page(viewport={"width": WIDTH, "height": 100})
        for report in sorted(REPORTS.glob("*.md")):
            page.set_content(PAGE % markdown.render(report.read_text()))
            drawn = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            note = PngImagePlugin.PngInfo()
            note.add_text(KEY, digest(report))
            drawn.convert("P", palette=Image.Palette.ADAPTIVE).save(
                picture(report), pnginfo=note, optimize=True
            )
        browser.close()


if __name__ == "__main__":
    main()
