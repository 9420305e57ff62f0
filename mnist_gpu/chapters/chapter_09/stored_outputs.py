"""What a chapter's cells showed when it was stored, shown again where they cannot run."""

import json
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[3] / "notebooks"
SAID = "Stored with the chapter, not run here:"


def show_stored(notebook: str, marker: str = "if runs:") -> None:
    """From the next cell on, every cell with a line that begins with `marker` shows what is stored of it in `notebook`.

    To be called in a notebook, where such cells do nothing. `notebook` is a file's name in notebooks/; of one that is
    not there, or whose outputs were cleared, nothing is shown.
    """
    from IPython import get_ipython
    from IPython.display import publish_display_data

    shell, path = get_ipython(), NOTEBOOKS / notebook
    if shell is None or not path.is_file():
        return
    cells = [(c, "".join(c["source"])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    # Not of the cell that calls this, which has such a line itself.
    stored = {s: c["outputs"] for c, s in cells if f"\n{marker}" in f"\n{s}" and "show_stored(" not in s}

    def show(result) -> None:
        if outputs := stored.get(result.info.raw_cell):
            print(SAID)
            for output in outputs:
                if "text" in output:  # which a run like this one has stored with the sentence
                    print("".join(output["text"]).removeprefix(SAID + "\n"), end="")
                elif "data" in output:
                    publish_display_data(output["data"], output.get("metadata", {}))

    shell.events.register("post_run_cell", show)
