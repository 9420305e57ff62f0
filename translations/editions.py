"""Keeps the translated editions in step with the English. Needs nothing but Python.

    python translations/editions.py                 makes every edition, and names what is stale or missing
    python translations/editions.py FILE ...        makes and checks these files only (translations/LANGUAGE/...)
    python translations/editions.py list            only names what is stale, missing or wrong
    python translations/editions.py new LANGUAGE    writes the English of what is missing, for translators to replace

translations/LANGUAGE/ holds each text once, below a line with its key and the hash of the English it was made from: a text
cell of a notebook below the cell's id, a section of a page below its heading's address. A text that is the English itself,
letter for letter, counts as missing. Where a text is stale or missing, the edition shows the English. Nothing here knows a
language: what is particular to one is in its edition.json and terms.json.
"""

import difflib
import json
import posixpath
import re
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"^<!-- text (\S+) ([0-9a-f]{8})(?: except: (.+?))? -->\n", re.MULTILINE)
FENCE = r"^ *(?P<fence>```+|~~~+).*?^ *(?P=fence) *$"
CODE = re.compile(rf"{FENCE}|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL)
LINK = re.compile(r'(?:(?<=\]\()|(?<=href=")|(?<=src="))[^)"\s]+')


class Text(NamedTuple):
    """A cell or a section: its English, and what the translation has for it."""

    key: str
    english: str
    translation: str | None = None
    made_from: str = ""  # the hash of the English that was translated
    excepted: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        if not self.english:
            return "extra"
        if self.translation is None or hash_of(self.translation) == self.made_from:
            return "missing"
        return "translated" if self.made_from == hash_of(self.english) else "stale"


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def sections(page: str) -> dict[str, str]:
    """A page, cut at its headings: the address of each, and its section. A line in a code block is no heading."""
    hidden = CODE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), page)
    starts = [m.start() for m in re.finditer(r"^#+ ", hidden, re.MULTILINE)]
    found: dict[str, str] = {}
    for start, end in zip([0, *starts], [*starts, len(page)], strict=True):
        if text := page[start:end].strip("\n"):
            heading = text.splitlines()[0] if start in starts else "top"
            address = re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")
            same = sum(re.fullmatch(re.escape(address) + r"(--\d+)?", key) is not None for key in found)
            found[address + (f"--{same + 1}" if same else "")] = text
    return found


def english_texts(name: str, content: str) -> dict[str, str]:
    """Every text of an English notebook or page, in its order."""
    if not name.endswith(".ipynb"):
        return sections(content)
    cells = (cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "markdown")
    return {cell["id"]: "".join(cell["source"]).strip("\n") for cell in cells}


def english_files() -> list[str]:
    found = [*(ROOT / "notebooks").glob("*.ipynb"), ROOT / "notebooks/glossary.md"]
    found += [ROOT / "README.md", *(ROOT / "notebooks/for_teachers").glob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.exists())


def languages() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "translations").glob("*/edition.json"))


def source_of(name: str, language: str) -> Path:
    """Where the translation of an English file is edited."""
    return ROOT / "translations" / language / re.sub(r"\.ipynb$", ".md", name.removeprefix("notebooks/"))


def made_name(name: str, language: str) -> str:
    """Where an English file's edition stands."""
    folder, _, rest = name.rpartition("notebooks/")
    return f"notebooks/{language}/{rest}" if folder or "/" in name else name.replace(".md", f".{language}.md")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def translated(source: Path) -> list[tuple[str, str, str, str]]:
    """Key, hash, exceptions and text, as they stand in a translator's file."""
    _, *parts = MARK.split(read(source)) if source.exists() else [""]
    return [(k, h, e or "", text.strip("\n")) for k, h, e, text in zip(*[iter(parts)] * 4, strict=True)]


def settings(language: str, file: str) -> dict:
    path = ROOT / "translations" / language / file
    return json.loads(read(path)) if path.exists() else {}


def texts(name: str, language: str) -> list[Text]:
    """All texts of an English file with their translations; at the end those whose English is gone."""
    english, there = english_texts(name, read(ROOT / name)), translated(source_of(name, language))
    twice = [key for key, n in Counter(key for key, *_ in there).items() if n > 1]
    if twice:
        raise ValueError(f"{source_of(name, language)}: more than once: {', '.join(twice)}")
    have = {key: (text, made_from, tuple(re.split(r", *", e)) if e else ()) for key, made_from, e, text in there}
    return [Text(k, english.get(k, ""), *have.get(k, ())) for k in [*english, *(k for k in have if k not in english)]]


def with_line(text: str, line: str) -> str:
    """The line above the text, or below its heading: a page has to begin with one."""
    heading, _, rest = text.partition("\n")
    return f"{heading}\n\n{line}\n\n{rest.lstrip()}".rstrip() if text.startswith("#") else f"{line}\n\n{text}"


def moved(text: str, name: str, language: str) -> str:
    """The text with its relative links as they must be where the edition stands."""
    here, there = posixpath.dirname(name), posixpath.dirname(made_name(name, language))

    def relative(match: re.Match) -> str:
        path, hash_sign, address = match.group().partition("#")
        if not path or re.match(r"[a-z]+:|/", path):
            return match.group()
        target = posixpath.normpath(posixpath.join(here, path))
        if target in english_files() and source_of(target, language).exists():
            target = made_name(target, language)
        slash = "/" if path.endswith("/") else ""
        return posixpath.relpath("/" + target, "/" + there) + slash + hash_sign + address

    pieces, end = [], 0
    for code in CODE.finditer(text):
        pieces += [LINK.sub(relative, text[end : code.start()]), code.group()]
        end = code.end()
    return "".join(pieces) + LINK.sub(relative, text[end:])


def made(name: str, language: str) -> str:
    """The edition of an English file: what belongs at `made_name`."""
    edition = settings(language, "edition.json")
    notebook = name.endswith(".ipynb")
    english = posixpath.relpath("/" + name, "/" + posixpath.dirname(made_name(name, language)))
    shown = {}
    for text in texts(name, language):
        if text.english:
            known = text.state == "translated"
            body = text.translation if known else with_line(text.english, edition["stale"])
            shown[text.key] = moved(body, name, language)
    first = next(iter(shown))
    shown[first] = with_line(shown[first], edition["note" if notebook else "page"].replace("{english}", english))
    if not notebook:
        return "\n\n".join(shown.values()) + "\n"
    content = json.loads(read(ROOT / name))
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = shown[cell["id"]].splitlines(keepends=True)
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def prose(text: str) -> str:
    """The text as it is read: code and formulas as one letter, links as their texts, no marks of emphasis."""
    text = re.sub(FENCE, "", text, flags=re.MULTILINE | re.DOTALL)
    text = FORMULA.sub("F", CODE.sub("C", text))
    text = re.sub(r"<[^>\n]+>", "", re.sub(r"\]\([^)]*\)|!?\[", "", text))
    return re.sub(r"\*+", "", text)


def form(text: str) -> dict[str, Counter]:
    """What a translation has to have in common with its English, in whatever order."""
    fences = [m.group() for m in re.finditer(FENCE, text, re.MULTILINE | re.DOTALL)]
    rest = re.sub(FENCE, "", text, flags=re.MULTILINE | re.DOTALL)
    spans = [m.group() for m in CODE.finditer(rest)]
    rest = CODE.sub("C", rest)
    # Of a command its comment may be translated; so may a sketch, a block without a language.
    blocks = [re.sub(r" *#.*", "", f) if re.match(r" *```(?!text)\w", f) else "a sketch" for f in fences]
    return {
        "code": Counter(" ".join(span.split()) for span in spans),
        "block": Counter(blocks),
        "formula": Counter(re.sub(r"\\text\{[^}]*\}", "", m.group()) for m in FORMULA.finditer(rest)),
        "link": Counter(LINK.findall(rest) + re.findall(r"<(https?:[^>]+)>", rest)),
        "heading": Counter(re.findall(r"^#+(?= )", rest, re.MULTILINE)),
        "list": Counter(re.findall(r"^ *(?:[-*]|\d+\.)(?= )", rest, re.MULTILINE)),
        "table": Counter(f"a row of {line.count('|') - 1}" for line in rest.splitlines() if line.startswith("|")),
        "tag": Counter(re.findall(r"</?[a-z]+\b(?!:)", rest)),
    }


def unrendered(text: str) -> list[str]:
    """Emphasis that CommonMark leaves as stars: with punctuation inside, they need a space or punctuation outside."""
    found = []
    for line in CODE.sub("C", text).splitlines():
        opened = set()
        for mark in re.finditer(r"(?<!^)(?<! )\*{1,3}|\*{1,3}(?! )", line):
            before, after = line[: mark.start()][-1:] or " ", line[mark.end() :][:1] or " "
            inside, outside = (before, after) if mark.group() in opened else (after, before)
            opened ^= {mark.group()}
            if inside.isspace() or (not inside.isalnum() and outside.isalnum()):
                found.append(line[max(mark.start() - 8, 0) : mark.end() + 8])
        found += [f"never closed: {line[:20]}"] if opened else []
    return found


def problems(text: Text, language: str) -> list[str]:
    """What a translated text lacks of its English, breaks of its language's rules, or calls by another term."""
    found, spoken = [], prose(text.translation)
    there = form(text.translation)
    for kind, english in form(text.english).items():
        found += [f"{kind}: missing {x!r}" for x in (english - there[kind])]
        found += [f"{kind}: not in the English {x!r}" for x in (there[kind] - english)]
    found += [f"emphasis: stays a star: {x!r}" for x in unrendered(text.translation)]
    for rule, pattern in settings(language, "edition.json").get("rules", {}).items():
        found += [f"{rule}: {m.group()!r}" for m in re.finditer(pattern, spoken, re.MULTILINE)]
    known = settings(language, "terms.json")
    english, linked = " ".join(prose(text.english).split()), "".join(LINK.findall(text.english))
    for term, allowed in sorted(known.get("terms", {}).items(), key=lambda item: -len(item[0])):
        words = re.compile(rf"\b{re.escape(term)}(?:e?s)?\b", re.IGNORECASE if term == term.lower() else 0)
        address = re.sub(r"[^\w -]", "", term.lower()).replace(" ", "-")
        said = words.search(english) and (term not in known["only where linked"] or f"#{address}" in linked)
        if said and not any(word.lower() in spoken.lower() for word in allowed):
            found.append(f"term {term}: none of {', '.join(allowed)}")
        english = words.sub("", english)  # a cache line is no cache
    unused = [kind for kind in text.excepted if not any(f.startswith(f"{kind}:") for f in found)]
    found = [f for f in found if f.partition(":")[0] not in text.excepted]
    return found + [f"except {kind}: there is nothing to except" for kind in unused]


def old_english(name: str, text: Text) -> str | None:
    """The English that a stale translation was made from, if git knows it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, encoding="utf-8", check=True).stdout

    try:
        for commit in git("log", "--format=%H", "--", name).split():
            old = english_texts(name, git("show", f"{commit}:{name}")).get(text.key, "")
            if hash_of(old) == text.made_from:
                return old
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError):
        pass  # no git, no repository, or a commit without the file
    return None


def report(name: str, language: str) -> list[str]:
    """What is stale or missing, or has lost its English, in one file; what was and what is the English."""
    every, source = texts(name, language), source_of(name, language).relative_to(ROOT).as_posix()
    lines = []
    if missing := [text.key for text in every if text.state == "missing"]:
        lines.append(f"{source}: {len(missing)} of {len(every)} missing: {', '.join(missing)}")
    for text in every:
        if text.state == "extra":
            lines.append(f"{source}: {text.key} is no longer in the English: move what is of use, and delete it")
        if text.state == "stale":
            now = hash_of(text.english)
            lines.append(f"{source}: {text.key} is stale. Mend the translation, then write {now} for {text.made_from}.")
            if (old := old_english(name, text)) is None:
                old = "(git does not know here what the English was; it now is:)"
            difference = difflib.ndiff(old.splitlines(), text.english.splitlines())
            lines += ["    " + line for line in difference if line[0] in "-+ "]
    return lines


def new(language: str) -> None:
    """Writes the English of whatever is missing into the translators' files, all texts in the order of the English."""
    folder = ROOT / "translations" / language
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "edition.json").exists():
        note = "*[English]({english})*"
        edition = {"language": language, "name": language, "stale": "(in English)", "note": note, "page": note}
        write(folder / "edition.json", json.dumps(edition, indent=2) + "\n")
    for name in english_files():
        blocks = []
        for text in texts(name, language):
            excepted = f" except: {', '.join(text.excepted)}" if text.excepted else ""
            body, made_from = text.translation, text.made_from
            if text.state == "missing":
                body, made_from = text.english, hash_of(text.english)
            blocks.append(f"<!-- text {text.key} {made_from}{excepted} -->\n{body}\n")
        write(source_of(name, language), "\n".join(blocks))


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")


def listing(chosen: list[tuple[str, str]] | None = None) -> list[str]:
    chosen = [(n, la) for la in languages() for n in english_files()] if chosen is None else chosen
    return [line for name, language in chosen for line in report(name, language)]


def main(arguments: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")
    every = {source_of(n, la).resolve(): (n, la) for la in languages() for n in english_files()}
    if arguments[:1] == ["new"] and len(arguments) == 2:
        new(arguments[1])
        return 0
    if arguments == ["list"]:
        print("\n".join(listing() or ["Every text of every edition is translated, from the English as it is."]))
        return 0
    chosen = list(every.values())
    if arguments:
        unknown = [a for a in arguments if Path(a).resolve() not in every]
        if unknown:
            print(__doc__, f"\nNo file of an edition: {', '.join(unknown)}", file=sys.stderr)
            return 2
        chosen = [every[Path(a).resolve()] for a in arguments]
    wrong = []
    for name, language in chosen:
        if source_of(name, language).exists():
            write(ROOT / made_name(name, language), made(name, language))
            known = [text for text in texts(name, language) if text.state == "translated"]
            source = source_of(name, language).relative_to(ROOT).as_posix()
            wrong += [f"{source}: {text.key}: {p}" for text in known for p in problems(text, language)]
    print("\n".join([*listing(chosen), *wrong, f"{len(chosen)} files made"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
