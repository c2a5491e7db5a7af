"""Draws `loop.svg`, the README's picture; with `--check`, fails if the file is another."""

import sys
from pathlib import Path

PICTURE = Path(__file__).with_name("loop.svg")
WIDTH, HEIGHT = 1000, 560

# selector: (property, by day, by night). The page has a colour, so it is readable anywhere.
COLOURS = {
    ".page": ("fill", "#f6f8fb", "#10151d"),
    ".card": ("fill", "#ffffff", "#1a222d"),
    "rect.card": ("stroke", "#d5dce6", "#344051"),
    ".text": ("fill", "#1c2733", "#e8edf3"),
    ".note": ("fill", "#5b6878", "#9fadbd"),
    ".icon": ("stroke", "#2f6feb", "#6ea8ff"),
    ".arrow": ("stroke", "#8592a3", "#718096"),
    ".tip": ("fill", "#8592a3", "#718096"),
    ".old": ("fill", "#fdecec", "#3c2328"),
    ".new": ("fill", "#e4f6ea", "#1b3527"),
    ".good": ("fill", "#14833b", "#4cc474"),
    ".bad": ("fill", "#bb4a12", "#f0925a"),
    ".merge": ("fill", "#7847d1", "#7847d1"),
}

# lines in a square of 24 by 24
ICONS = {
    "data": "M4 8l8-4 8 4-8 4zM4 12l8 4 8-4M4 16l8 4 8-4",
    "prepare": "M4 5h16l-6 7v5l-4 3v-8z",
    "train": "M4 4v16h16M8 6c1 8 4 10 11 10",
    "evaluate": "M5 20v-6M10 20V9M15 20v-4M20 20V5",
    "export": "M12 15V4M8 8l4-4 4 4M5 13v7h14v-7",
    "gate": "M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6zM8.5 12l2.5 2.5 4.5-5",
    "package": "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
    "pull request": "M6 8.5v7M4 6a2 2 0 1 0 4 0 2 2 0 1 0-4 0M4 18a2 2 0 1 0 4 0 2 2 0 1 0-4 0"
    "M16 18a2 2 0 1 0 4 0 2 2 0 1 0-4 0M18 15.5V9a3 3 0 0 0-3-3h-4M13.5 3.5L11 6l2.5 2.5",
    "Argo CD": "M5 12a7 7 0 0 1 12-5l2 2M19 4.5V9h-4.5M19 12a7 7 0 0 1-12 5l-2-2M5 19.5V15h4.5",
    "Argo Rollouts": "M3 20h6v-5h6v-5h6V5",
    "Triton": "M4 5h16v6H4zM4 13h16v6H4zM7.5 8h.01M7.5 16h.01",
}

# what a model goes through: name, and what to know of it
PIPELINE = {
    "data": ("versions", "kept by DVC"),
    "prepare": ("clean, split,", "report"),
    "train": ("PyTorch", "Lightning"),
    "evaluate": ("figures with", "their bounds"),
    "export": ("ONNX, with", "golden answers"),
    "gate": ("not worse than", "what serves"),
    "package": ("an image,", "by digest"),
}
CLUSTER = {
    "Triton": (112, ("serves", "version 8")),
    "Argo Rollouts": (200, ("new pods beside the old,", "step by step")),
    "Argo CD": (112, ("syncs what", "Git says")),
}
DIFFERENCE = {
    '-  version: "7"': "old",
    '+  version: "8"': "new",
    '-  image: "…@sha256:3b1d60…"': "old",
    '+  image: "…@sha256:c94e27…"': "new",
}
CHECKS = ("checks: signature, gate, manifests", "rehearsal on a real Triton")


def text(x: float, y: float, words: str, style: str = "text") -> str:
    """A line of text whose baseline is at y."""
    return f'<text x="{x}" y="{y}" class="{style}">{words}</text>'


def box(x: float, y: float, width: float, height: float, style: str = "card") -> str:
    """A rectangle with round corners."""
    corner = 4 if style in ("old", "new") else 10
    size = f'width="{width}" height="{height}" rx="{corner}"'
    return f'<rect x="{x}" y="{y}" {size} class="{style}"/>'


def icon(x: float, y: float, name: str) -> str:
    """The icon of that name with its corner at x and y."""
    return f'<path transform="translate({x} {y})" d="{ICONS[name]}" class="icon"/>'


def arrow(path: str) -> str:
    """An arrow along the path, in SVG's own words."""
    return f'<path d="{path}" class="arrow" marker-end="url(#tip)"/>'


def step(x: float, y: float, width: float, name: str, notes: tuple[str, ...]) -> list[str]:
    """A card with icon, name and two lines of notes."""
    middle = x + width / 2
    lines = [text(middle, y + 77 + 16 * row, note, "note middle") for row, note in enumerate(notes)]
    name_line = text(middle, y + 57, name, "text middle name")
    return [box(x, y, width, 108), icon(middle - 12, y + 13, name), name_line, *lines]


def pipeline() -> list[str]:
    """The upper row: from data to an image."""
    drawn = [text(36, 42, "make pipeline", "text code")]
    drawn += [text(158, 42, "runs what is out of date", "note")]
    drawn += [text(716, 42, "make release", "text code"), text(826, 42, "proposes it", "note")]
    for column, (name, notes) in enumerate(PIPELINE.items()):
        x = 36 + 136 * column
        drawn += step(x, 58, 112, name, notes)
        if column:
            drawn.append(arrow(f"M{x - 22} 112h16"))
    return drawn


def pull_request(x: float, y: float) -> list[str]:
    """The middle of it all: one file, its checks and the merge."""
    drawn = [box(x, y, 384, 302), icon(x + 18, y + 18, "pull request")]
    drawn += [text(x + 52, y + 28, "Pull request: version 7 → 8", "text name")]
    drawn += [text(x + 52, y + 47, "argocd/environments/staging/model.yaml", "note code")]
    for row, (line, style) in enumerate(DIFFERENCE.items()):
        drawn += [box(x + 18, y + 66 + 29 * row, 348, 25, style)]
        drawn += [text(x + 30, y + 83 + 29 * row, line, "text code")]
    for row, check in enumerate(CHECKS):
        drawn += [text(x + 20, y + 208 + 22 * row, "✓", "good name")]
        drawn += [text(x + 42, y + 208 + 22 * row, check, "text")]
    drawn += [box(x + 18, y + 248, 348, 38, "merge")]
    drawn += [text(x + 192, y + 272, "Merge = approval", "white middle name")]
    return drawn


def cluster(y: float) -> list[str]:
    """The lower row, from right to left: what follows a merge."""
    drawn, x = [], 36
    for name, (width, notes) in CLUSTER.items():
        drawn += step(x, y, width, name, notes)
        x += width + 40
        drawn.append(arrow(f"M{x - 7} {y + 54}h-25"))
    return drawn


def outcome(x: float, y: float, name: str, style: str, lines: tuple[str, ...]) -> list[str]:
    """A card that says what follows when the new version does well, or does not."""
    drawn = [box(x, y, 240, 84), text(x + 16, y + 27, name, f"{style} name")]
    return drawn + [text(x + 16, y + 49 + 18 * row, line) for row, line in enumerate(lines)]


def body() -> list[str]:
    """All of the drawing, from behind to the front."""
    healthy = ("promote: the same file,", "copied to production")
    degraded = ("version 7 keeps serving; roll", "back with one more pull request")
    return [
        box(0, 0, WIDTH, HEIGHT, "page"),
        *pipeline(),
        arrow("M908 170v40"),
        *pull_request(580, 222),
        *cluster(270),
        arrow("M92 262V176"),
        text(106, 224, "new data", "note"),
        text(540, 224, "Nothing but Git decides what is served.", "text end name"),
        arrow("M288 385v12a10 10 0 0 1-10 10H166a10 10 0 0 0-10 10v14"),
        arrow("M288 385v12a10 10 0 0 0 10 10H410a10 10 0 0 1 10 10v14"),
        *outcome(36, 440, "healthy", "good", healthy),
        *outcome(300, 440, "degraded", "bad", degraded),
    ]


def stylesheet() -> str:
    """The fonts, and the colours of day and night."""

    def colours(which: int) -> str:
        rules = COLOURS.items()
        return "\n".join(f"{selector} {{ {rule[0]}: {rule[which]} }}" for selector, rule in rules)

    return f"""<style>
text {{ font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif }}
.note {{ font-size: 12.5px }}
.name {{ font-size: 15px; font-weight: 600 }}
.code {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace }}
.middle {{ text-anchor: middle }}
.end {{ text-anchor: end }}
.white {{ fill: #ffffff }}
.icon, .arrow {{ fill: none; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round }}
{colours(1)}
@media (prefers-color-scheme: dark) {{
{colours(2)}
}}
</style>"""


def draw() -> str:
    """The picture as the text of an SVG."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    title = "<title>From data to a served model, by merging a pull request</title>"
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="5" refY="4" markerWidth="5" markerHeight="5" '
    tip += 'orient="auto"><path d="M0 0l8 4-8 4z" class="tip"/></marker>'
    return "\n".join([head, title, stylesheet(), tip, *body(), "</svg>\n"])


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        PICTURE.write_text(draw())
    elif PICTURE.read_text() != draw():
        sys.exit(f"error: {PICTURE} is not what this script draws: run it without --check")
