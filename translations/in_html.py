"""The texts of a page that moves: those of its elements with data-t, and those that its scripts write, in TEXT."""

import json
import re
from collections.abc import Callable

SCRIPTS = '<script id="text">'
MARKED = re.compile(r'(<(\w+)\b[^>]* data-t="(\w+)"[^>]*>)(.*?)(?=</\2>)', re.DOTALL)
WRITTEN = re.compile(r'(\w+|"[^"\n]+")(: )("(?:[^"\\\n]|\\.)*")')


def replaced(page: str, new: Callable[[str, str], str]) -> str:
    """The page with the text new(key, English) wherever it has one; it stays as it is where that is the English."""

    def marked(match: re.Match) -> str:
        start, _, key, inside = match.groups()
        english = " ".join(inside.split())
        text = new(key, english)
        return match[0] if text == english else start + text

    def written(match: re.Match) -> str:
        key, colon, english = match[1].strip('"'), match[2], json.loads(match[3])
        text = new(key, english)
        return match[0] if text == english else match[1] + colon + json.dumps(text, ensure_ascii=False)

    html, start, rest = page.partition(SCRIPTS)
    script, end, rest = rest.partition("</script>")
    return MARKED.sub(marked, html) + start + WRITTEN.sub(written, script) + end + rest


def texts(page: str) -> dict[str, str]:
    """The English of each key, in the page's order."""
    found: dict[str, str] = {}

    def note(key: str, english: str) -> str:
        if found.setdefault(key, english) != english:
            raise ValueError(f"two texts have the key {key}: {found[key]!r} and {english!r}")
        return english

    replaced(page, note)
    return found


def settled(page: str, language: str, folder: str, moved: Callable[[str], str]) -> str:
    """The page for another language and folder. moved: its HTML with the links that lead on from there."""
    html, start, rest = page.partition(SCRIPTS)
    for old, new in (
        (r'<html lang="[^"]*">', f'<html lang="{language}">'),
        (r'<body lang="[^"]*" data-folder="[^"]*">', f'<body lang="{language}" data-folder="{folder}">'),
    ):
        html = re.sub(old, new, html, count=1)
    return moved(html) + start + rest
