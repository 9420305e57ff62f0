"""Makes notebooks/play/*.html from site/play/*.html: each page is one file that needs nothing else.

A line `{{ path }}` of a template, a path from the repository's root, becomes the text of that file: the style that the
pages share, the same WGSL that the package runs, the same published figures that the chapters read. Then it makes the
translated pages, notebooks/LANGUAGE/play/*.html, from the English ones and translations/LANGUAGE/play/*.json.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "notebooks/play"
sys.path.append(str(ROOT / "translations"))
import editions  # noqa: E402


def made(template: Path) -> str:
    """The page as one text. Raises FileNotFoundError where a file that it takes in is not there."""
    return re.sub(
        r"^\{\{ (\S+) \}\}$",
        lambda line: (ROOT / line[1]).read_text("utf-8").rstrip("\n"),
        template.read_text("utf-8"),
        flags=re.MULTILINE,
    )


def translated(template: Path) -> dict[Path, str]:
    """The page's translations, by where they belong. They are made from the English page that is stored."""
    name = f"notebooks/play/{template.name}"
    there = [language for language in editions.languages() if editions.source_of(name, language).exists()]
    return {ROOT / editions.made_name(name, language): editions.made(name, language) for language in there}


def main() -> None:
    for template in sorted((ROOT / "site/play").glob("*.html")):
        editions.write(MADE / template.name, made(template))
        for path, page in translated(template).items():
            editions.write(path, page)


if __name__ == "__main__":
    main()
