"""Keeps the translated editions in step with the English. Needs nothing but Python.

    python translations/editions.py                 makes every edition, and names what is stale, missing or wrong
    python translations/editions.py FILE ...        the same for these files only (translations/LANGUAGE/...)
    python translations/editions.py list            only names it
    python translations/editions.py new LANGUAGE    writes the English of what is missing, for translators to replace

translations/LANGUAGE/ holds each text once, below a line with its key and the hash of the English it was made from: a
text cell of a notebook below the cell's id, a section of a page below its heading's address. A text that is the English
itself, letter for letter, counts as missing. Of a page that moves, NAME.json has each text beside its English. Where a
text is stale or missing, the edition shows the English. Nothing here knows a language: what is particular to one is in
its edition.json and terms.json.
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

import in_html
from form import CODE, LINK, address, problems

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"^<!-- text (\S+) ([0-9a-f]{8})(?: except: (.+?))? --> *\n", re.MULTILINE)

# A line that leads to Colab and Kaggle is not translated: it is made from the repository's address, if that is known.
HOSTED = re.compile(r"\n\n(\[!?\[?Open (?:chapter \d\d )?in Colab\]\(.*)")


class Text(NamedTuple):
    """A cell or a section: its English, and what the translation has for it."""

    key: str
    english: str
    translation: str | None = None
    made_from: str = ""  # the hash of the English that was translated
    excepted: tuple[str, ...] = ()  # what is not to be checked
    was: str | None = None  # the English that was translated, where it is kept: "GPU" may be translated as "GPU" there

    @property
    def state(self) -> str:
        if not self.english:
            return "extra"
        if self.translation is None or (self.was is None and hash_of(self.translation) == self.made_from):
            return "missing"
        return "translated" if self.made_from == hash_of(self.english) else "stale"


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")


def settings(language: str, file: str) -> dict:
    path = ROOT / "translations" / language / file
    return json.loads(read(path)) if path.exists() else {}


def languages() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "translations").glob("*/edition.json"))


def english_files() -> list[str]:
    found = [*(ROOT / "notebooks").glob("*.ipynb"), ROOT / "notebooks/glossary.md"]
    found += [ROOT / "README.md", *(ROOT / "notebooks/for_teachers").glob("*.md")]
    found += (ROOT / "notebooks/play").glob("*.html")
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.exists())


def source_of(name: str, language: str) -> Path:
    """Where the translation of an English file is edited."""
    file = re.sub(r"\.ipynb$", ".md", name.removeprefix("notebooks/"))
    return ROOT / "translations" / language / re.sub(r"\.html$", ".json", file)


def made_name(name: str, language: str) -> str:
    """Where an English file's edition stands: beside the English at the top, else in the language's own folder."""
    if name.startswith("notebooks/"):
        return name.replace("notebooks/", f"notebooks/{language}/", 1)
    return name.replace(".md", f".{language}.md")


def sections(page: str) -> dict[str, str]:
    """A page, cut at its headings: the address of each, and its section. A line in a code block is no heading."""
    hidden = CODE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), page)
    starts = [m.start() for m in re.finditer(r"^#+ ", hidden, re.MULTILINE)]
    found: dict[str, str] = {}
    times: Counter = Counter()
    for start, end in zip([0, *starts], [*starts, len(page)], strict=True):
        if text := page[start:end].strip("\n"):
            key = address(text.splitlines()[0]) if start in starts else "top"
            times[key] += 1
            found[key if times[key] == 1 else f"{key}--{times[key]}"] = text
    return found


def english_texts(name: str, content: str) -> dict[str, str]:
    """Every text of an English notebook or page, in its order."""
    if name.endswith(".html"):
        return in_html.texts(content)
    if not name.endswith(".ipynb"):
        return sections(HOSTED.sub("", content))
    cells = (cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "markdown")
    return {cell["id"]: HOSTED.sub("", "".join(cell["source"])).strip("\n") for cell in cells}


def translations_in(source: Path) -> dict[str, tuple]:
    """What a translators' file has: of each key, what Text has after the English."""
    if source.suffix == ".json":
        every = json.loads(read(source)) if source.exists() else {}
        return {k: (t["text"], hash_of(t["en"]), tuple(t.get("except", ())), t["en"]) for k, t in every.items()}
    above, *parts = MARK.split(read(source)) if source.exists() else [""]
    have = {}
    for key, made_from, excepted, text in zip(*[iter(parts)] * 4, strict=True):
        if key in have or "<!-- text " in text:
            raise ValueError(f"{source}: {key} stands there twice, or a line in it is nearly a `<!-- text ... -->`")
        have[key] = (text.strip("\n"), made_from, tuple(re.split(", *", excepted)) if excepted else ())
    if above.strip():
        raise ValueError(f"{source}: text above the first `<!-- text ... -->`")
    return have


def texts(name: str, language: str) -> list[Text]:
    """All texts of an English file with their translations; at the end those whose English is gone."""
    english, have = english_texts(name, read(ROOT / name)), translations_in(source_of(name, language))
    return [Text(k, english.get(k, ""), *have.get(k, ())) for k in [*english, *(k for k in have if k not in english)]]


def with_line(text: str, line: str) -> str:
    """The text with a line above it, or below its heading: a page has to begin with that."""
    heading, _, rest = text.partition("\n")
    return f"{heading}\n\n{line}\n\n{rest.lstrip()}".rstrip() if text.startswith("#") else f"{line}\n\n{text}"


def moved(text: str, name: str, language: str) -> str:
    """The text with its relative links as they must be where the edition stands."""
    here, there = posixpath.dirname(name), posixpath.dirname(made_name(name, language))
    editions = {n: made_name(n, language) for n in english_files() if source_of(n, language).exists()}

    def relative(match: re.Match) -> str:
        path, hash_sign, heading = match.group().partition("#")
        if not path or re.match(r"[a-z]+:|/", path):
            return match.group()
        target = posixpath.normpath(posixpath.join(here, path))
        slash = "/" if path.endswith("/") else ""
        return posixpath.relpath("/" + editions.get(target, target), "/" + there) + slash + hash_sign + heading

    pieces, end = [], 0
    for code in CODE.finditer(text):
        pieces += [LINK.sub(relative, text[end : code.start()]), code.group()]
        end = code.end()
    return "".join(pieces) + LINK.sub(relative, text[end:])


def line_below_title(name: str, language: str) -> str:
    """What an edition says of itself, and where its own chapters open in Colab and Kaggle, if the English says that."""
    edition, text = settings(language, "edition.json"), read(ROOT / name)
    line = edition["page"]
    if name.endswith(".ipynb"):
        line = edition["note"]
        text = "".join(next(c["source"] for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"))
    line = line.replace("{english}", posixpath.relpath("/" + name, "/" + posixpath.dirname(made_name(name, language))))
    if hosted := HOSTED.search(text):
        line += "\n\n" + re.sub(r"/notebooks/(?=\d\d_)", f"/notebooks/{language}/", hosted.group(1))
        for english, own in edition.get("replace", {}).items():
            line = line.replace(english, own)
    return line


def made(name: str, language: str) -> str:
    """The edition of an English file: what belongs at `made_name`."""
    if name.endswith(".html"):
        known = {text.key: text.translation for text in texts(name, language) if text.state == "translated"}
        page = in_html.replaced(read(ROOT / name), lambda key, english: known.get(key, english))
        own, folder = settings(language, "edition.json")["language"], posixpath.dirname(made_name(name, language))
        return in_html.settled(page, own, folder, lambda html: moved(html, name, language))
    stale, shown = settings(language, "edition.json")["stale"], {}
    for text in texts(name, language):
        if text.english:
            known = text.state == "translated"
            body = moved(text.translation if known else with_line(text.english, stale), name, language)
            shown[text.key] = body if shown else with_line(body, line_below_title(name, language))
    if not name.endswith(".ipynb"):
        return "\n\n".join(shown.values()) + "\n"
    content = json.loads(read(ROOT / name))
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = shown[cell["id"]].splitlines(keepends=True)
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def old_english(name: str, text: Text) -> str | None:
    """The English that a stale translation was made from, if git knows it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, encoding="utf-8").stdout

    try:
        commits = git("log", "--format=%H", "--", name).split()
    except OSError:  # no git
        return None
    for commit in commits:
        content = git("show", f"{commit}:./{name}")
        old = (
            english_texts(name, content).get(text.key, "") if content else ""
        )  # there is none if this commit removed it
        if hash_of(old) == text.made_from:
            return old
    return None


def report(name: str, language: str) -> dict[str, list[str]]:
    """By state, what is to be done in one file: what is missing, stale (with the old and the new English), or wrong."""
    every, source = texts(name, language), source_of(name, language).relative_to(ROOT).as_posix()
    found = {"missing": [], "stale": [], "extra": [], "wrong": []}
    if missing := [text.key for text in every if text.state == "missing"]:
        there = sum(text.state != "extra" for text in every)
        keys = "all" if len(missing) == there else ", ".join(missing)
        found["missing"].append(f"{source}: {keys} missing of {there}")
    for text in every:
        at, now = f"{source}: {text.key}", hash_of(text.english)
        if text.state == "extra":
            found["extra"].append(f"{at} is no longer in the English: delete it, or give it the key that it has now.")
        if text.state == "stale":
            old = old_english(name, text) if text.was is None else text.was
            was = "" if old is not None else " (What the English was, git does not know here.)"
            then = f"write {now} for {text.made_from}" if text.was is None else "write the new English beside it"
            lines = [f"{at} is stale. Mend the translation, then {then}.{was}"]
            lines += [line for line in difflib.ndiff((old or "").splitlines(), text.english.splitlines())]
            found["stale"].append("\n    ".join(line for line in lines if line[0] != "?"))
        if text.state == "translated":
            rules, known = settings(language, "edition.json").get("rules", {}), settings(language, "terms.json")
            kinds = problems(text.english, text.translation, rules, known)
            unused = set(text.excepted) - {kind for kind, _ in kinds}
            found["wrong"] += [f"{at}: {kind}: {what}" for kind, what in kinds if kind not in text.excepted]
            found["wrong"] += [f"{at}: except: there is no {kind!r} to except" for kind in sorted(unused)]
    return found


def new(language: str) -> None:
    """Writes the English of whatever is missing into the translators' files, all texts in the order of the English."""
    edition = ROOT / "translations" / language / "edition.json"
    if not edition.exists():
        line = "*[English]({english})*"
        first = {"language": language, "name": language, "note": line, "page": line, "stale": "*(In English.)*"}
        write(edition, json.dumps(first, indent=2) + "\n")
    for name in english_files():
        blocks, source = [], source_of(name, language)
        if source.suffix == ".json":
            content = {}
            for text in texts(name, language):
                english = text.english if text.state == "missing" else text.was
                content[text.key] = {"en": english, "text": text.translation}
                if text.excepted:
                    content[text.key]["except"] = text.excepted
            write(source, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
            continue
        for text in texts(name, language):
            missing = text.state == "missing"
            made_from = hash_of(text.english) if missing else text.made_from
            excepted = f" except: {', '.join(text.excepted)}" if text.excepted else ""
            body = text.english if missing else text.translation
            blocks.append(f"<!-- text {text.key} {made_from}{excepted} -->\n{body}\n")
        write(source, "\n".join(blocks))


def main(arguments: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")  # also where the code page is another
    if arguments[:1] == ["new"] and len(arguments) == 2:
        new(arguments[1])
        return 0
    chosen = {source_of(n, la).resolve(): (n, la) for la in languages() for n in english_files()}
    if arguments and arguments != ["list"]:
        if unknown := [a for a in arguments if Path(a).resolve() not in chosen]:
            print(f"{__doc__}\nNo file of an edition: {', '.join(unknown)}", file=sys.stderr)
            return 2
        chosen = {Path(a).resolve(): chosen[Path(a).resolve()] for a in arguments}
    wrong = 0
    for source, (name, language) in chosen.items():
        if source.exists() and arguments != ["list"]:
            write(ROOT / made_name(name, language), made(name, language))
        found = report(name, language)
        wrong += len(found["wrong"])
        print(*(line for lines in found.values() for line in lines), sep="\n", end="\n" if any(found.values()) else "")
    print(f"{len(chosen)} files looked at, {wrong} mistakes found")
    return 1 if wrong and arguments != ["list"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:  # what stands in a file is not what it has to be
        sys.exit(f"error: {error}")
