"""What a translated text has to share with its English, and the rules and terms of its language that it has to keep."""

import re
from collections import Counter
from collections.abc import Iterator

FENCE = re.compile(r"^ *(?P<fence>```+|~~~+).*?^ *(?P=fence) *$", re.MULTILINE | re.DOTALL)
CODE = re.compile(rf"{FENCE.pattern}|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+\$", re.DOTALL)
LINK = re.compile(r'(?:(?<=\]\()|(?<=href=")|(?<=src="))[^)"\s]+')
STARS = re.compile(r"(?<!^)(?<! )\*{1,3}|\*{1,3}(?! )")


def address(heading: str) -> str:
    """The part behind the # of a link to a heading."""
    heading = re.sub(r"\]\([^)]*\)", "", heading.lstrip("# "))  # of a link, its text
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def prose(text: str) -> str:
    """The text as it is read: code and formulas as one letter, links as their texts, without marks of emphasis."""
    text = FORMULA.sub("F", CODE.sub("C", FENCE.sub("", text)))
    text = re.sub(r"<[^>\n]+>", "", re.sub(r"\]\([^)]*\)|!?\[", "", text))
    return re.sub(r"\*+", "", text)


def parts(text: str) -> dict[str, Counter]:
    """What has to be the same in both languages, in whatever order."""
    text_only = FENCE.sub("", text)
    bare = CODE.sub("C", text_only)
    # Of a command, the comment may be translated; so may a sketch, which is a block without a language.
    blocks = [m.group() for m in FENCE.finditer(text)]
    blocks = [re.sub(r" *#.*", "", b) if re.match(r" *```(?!text)\w", b) else "a sketch" for b in blocks]
    return {
        "code": Counter(" ".join(m.group().split()) for m in CODE.finditer(text_only)),
        "block": Counter(blocks),
        "placeholder": Counter(re.findall(r"\{\w+\}", FORMULA.sub("", bare))),
        "formula": Counter(re.sub(r"\\text\{[^}]*\}|\s", "", m.group()) for m in FORMULA.finditer(bare)),
        "link": Counter(LINK.findall(bare) + re.findall(r"<(https?:[^>]+)>", bare)),
        "heading": Counter(re.findall(r"^#+(?= )", bare, re.MULTILINE)),
        "list": Counter(re.findall(r"^ *(?:[-*]|\d+\.)(?= )", bare, re.MULTILINE)),
        "table": Counter(f"a row of {line.count('|') - 1}" for line in bare.splitlines() if line.startswith("|")),
        "tag": Counter(re.findall(r"</?[a-z]+\b(?!:)", bare)),
    }


def left_as_stars(text: str) -> Iterator[str]:
    """Emphasis that CommonMark does not see: with punctuation inside, it needs a space or punctuation outside."""
    for line in CODE.sub("C", text).splitlines():
        opened = set()
        for mark in STARS.finditer(line):
            before, after = line[: mark.start()][-1:] or " ", line[mark.end() :][:1] or " "
            inside, outside = (before, after) if mark.group() in opened else (after, before)
            opened ^= {mark.group()}
            if inside.isspace() or (not inside.isalnum() and outside.isalnum()):
                yield line[max(mark.start() - 8, 0) : mark.end() + 8]
        if opened:
            yield f"never closed: {line[:20]}"


def terms_not_kept(english: str, spoken: str, known: dict) -> Iterator[tuple[str, str]]:
    """The terms of the English for which the translation has another word, or none."""
    links, english = LINK.findall(english), " ".join(prose(english).split())
    for term, allowed in sorted(known.get("terms", {}).items(), key=lambda item: -len(item[0])):
        words = re.compile(rf"\b{re.escape(term)}(?:e?s)?\b", re.IGNORECASE if term == term.lower() else 0)
        linked = any(link.endswith(f"#{address(term)}") for link in links)
        asked = linked or term not in known.get("only where linked", ())
        if words.search(english) and asked and not any(word.lower() in spoken.lower() for word in allowed):
            yield f"term {term}", f"there should be {' or '.join(allowed)}"
        english = words.sub("", english)  # a cache line is no cache


def problems(english: str, translation: str, rules: dict[str, dict], terms: dict) -> list[tuple[str, str]]:
    """Kind and description of everything that is wrong with a translated text."""
    found, there, spoken = [], parts(translation), prose(translation)
    for kind, here in parts(english).items():
        found += [(kind, f"missing {part!r}") for part in (here - there[kind]).elements()]
        found += [(kind, f"not in the English {part!r}") for part in (there[kind] - here).elements()]
    found += [("emphasis", f"would be shown as stars, in {part!r}") for part in left_as_stars(translation)]
    for rule, about in rules.items():
        wrong = re.finditer(about["pattern"], spoken)
        found += [(rule, f"in {spoken[max(m.start() - 5, 0) : m.end() + 5]!r}") for m in wrong]
    return found + list(terms_not_kept(english, spoken, terms))
