"""Makes notebooks/play/*.html from site/play/*.html: each page is one file that needs nothing else.

A line `{{ path }}` of a template, a path from the repository's root, becomes the text of that file: the style that the
pages share, the same WGSL that the package runs, the same published figures that the chapters read.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "notebooks/play"


def made(template: Path) -> str:
    """The page as one text. Raises FileNotFoundError where a file that it takes in is not there."""
    return re.sub(
        r"^\{\{ (\S+) \}\}$",
        lambda line: (ROOT / line[1]).read_text("utf-8").rstrip("\n"),
        template.read_text("utf-8"),
        flags=re.MULTILINE,
    )


def main() -> None:
    MADE.mkdir(exist_ok=True)
    for template in sorted((ROOT / "site/play").glob("*.html")):
        (MADE / template.name).write_text(made(template), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
