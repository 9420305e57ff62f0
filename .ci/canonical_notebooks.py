"""Brings the notebooks into one form, in place: `python .ci/canonical_notebooks.py`.

A chapter keeps its cells and what they print and draw. What else a run or an editor leaves in it goes: times, versions,
the state of widgets. So a difference between two versions of a chapter is one of its text, its code or its results.

What depends on the repository's public address, `Repository` in pyproject.toml, is written here as well: links to Colab
and Kaggle, and the lines by which a chapter gets the course there. Without an address they are taken out.
"""

import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "accelerator": "GPU",  # what Colab is asked for
    "colab": {"gpuType": "T4"},
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}
# Colab begins in the first folder, Kaggle in the second. Once this has run, the current folder is another.
SET_UP = """import os

if os.getcwd() in ("/content", "/kaggle/working"):  # on Colab or Kaggle, get the course
    !git clone -q --depth 1 {address} course
    %pip install -q -e course
    %cd -q course

"""
GITHUB = "https://github.com/"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
OLD_SET_UP = re.compile(re.escape(SET_UP).replace(re.escape("{address}"), r"\S+"))
OLD_LINKS = re.compile(r"\n\n\[Open in Colab\]\(.*\Z")
OLD_BADGE = re.compile(r"^\n\[!\[Open chapter 01 in Colab\].*\n", re.MULTILINE)
OLD_CODE = re.compile(r"^repository-code: .*\n", re.MULTILINE)
OUTPUT = ("output_type", "name", "text", "data", "metadata", "execution_count", "ename", "evalue", "traceback")


def repository(root: Path) -> str | None:
    """The public address of the repository, or None where pyproject.toml names none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    address = project.get("urls", {}).get("Repository")
    return address and address.rstrip("/").removesuffix(".git")


def hosted(address: str | None, name: str) -> tuple[str, str] | None:
    """Where a chapter opens in Colab and in Kaggle. They open what is on GitHub."""
    if not address or not address.startswith(GITHUB):
        return None
    path = f"{address.removeprefix(GITHUB)}/blob/main/notebooks/{name}"
    return f"https://colab.research.google.com/github/{path}", f"https://kaggle.com/kernels/welcome?src={GITHUB}{path}"


def without_set_up(source: str) -> str:
    """A first code cell without the lines for Colab and Kaggle."""
    return OLD_SET_UP.sub("", source)


def outputs_of(outputs: list) -> list:
    """Without progress bars, and with what was printed in one piece, however it arrived. The figures' texts stay."""
    found = []
    for output in outputs:
        output = {key: value for key, value in output.items() if key in OUTPUT}
        if "metadata" in output:
            described = {kind: about for kind, about in output["metadata"].items() if isinstance(about, dict)}
            output["metadata"] = {kind: {"alt": about["alt"]} for kind, about in described.items() if "alt" in about}
        if WIDGET in output.get("data", {}):  # without its state, a browser shows an error in its place
            continue
        if found and output["output_type"] == "stream" and found[-1].get("name") == output["name"]:
            found[-1]["text"] += output["text"]
        else:
            found.append(output)
    return found


def cell_of(cell: dict, id: str) -> dict:
    """A cell with its tags and what its kind has to have. A solution is folded: JupyterLab unfolds what has run."""
    tags = cell["metadata"].get("tags", [])
    folded = {"outputs_hidden": True, "source_hidden": True} if "solution" in tags else {}
    metadata = {"tags": tags, "jupyter": folded}
    found = {key: cell[key] for key in ("cell_type", "source", "attachments") if key in cell}
    found |= {"id": id, "metadata": {key: value for key, value in metadata.items() if value}}
    if cell["cell_type"] == "code":
        found |= {"execution_count": cell.get("execution_count"), "outputs": outputs_of(cell.get("outputs", []))}
    return found


def ids_of(cells: list) -> list[str]:
    """Each cell's id, which Colab keeps elsewhere; a new one where there is none, or a cell before it has the same."""
    old, found = [cell.get("id") or cell["metadata"].get("id", "") for cell in cells], []
    free = (id for n in range(2 * len(old)) if (id := f"cell-{n:02}") not in old)
    for id in old:
        found.append(id if re.fullmatch(r"[\w-]{1,64}", id, re.ASCII) and id not in found else next(free))
    return found


def canonical(text: str, name: str, address: str | None) -> str:
    """The text of the notebook called `name` in its one form. Raises ValidationError where it is none."""
    notebook = nbformat.v4.reads(text)  # nbformat.read would make up other ids each time
    cells = [cell_of(cell, id) for cell, id in zip(notebook.cells, ids_of(notebook.cells), strict=True)]
    title, first = (next(c for c in cells if c["cell_type"] == kind) for kind in ("markdown", "code"))
    title["source"] = OLD_LINKS.sub("", title["source"])
    if at := hosted(address, name):
        title["source"] += "\n\n[Open in Colab]({}), [in Kaggle]({})".format(*at)
    first["source"] = (SET_UP.format(address=address) if address else "") + without_set_up(first["source"])
    made = nbformat.from_dict({"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5})
    nbformat.validate(made)
    return nbformat.v4.writes(made) + "\n"


def readme(text: str, name: str, address: str | None) -> str:
    """With a badge under the title that opens chapter 01."""
    at = hosted(address, "01_detect_the_gpu.ipynb")
    badge = f"\n[![Open chapter 01 in Colab]({BADGE})]({at[0]})\n" if at else ""
    return OLD_BADGE.sub("", text).replace("\n", f"\n{badge}", 1)


def citation(text: str, name: str, address: str | None) -> str:
    """With the address of the code as its last line."""
    return OLD_CODE.sub("", text) + (f'repository-code: "{address}"\n' if address else "")


def mended(root: Path) -> dict[Path, str]:
    """The files that are not in their one form, each with the text that it should have."""
    address, found = repository(root), {}
    forms = {"notebooks/*.ipynb": canonical, "README.md": readme, "CITATION.cff": citation}
    for pattern, form in forms.items():
        for path in sorted(root.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            if (made := form(text, path.name, address)) != text:
                found[path] = made
    return found


def main(root: Path = ROOT) -> int:
    for path, text in mended(root).items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {path.relative_to(root).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
