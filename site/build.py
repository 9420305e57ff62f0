"""Builds the web edition: `python site/build.py [FOLDER]`. Nothing is executed, and nothing is fetched.

Each language is a run of Sphinx of its own, with a search of its own. The English pages lie in the folder itself, each
translated edition's in a folder below it. A warning is an error.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(out: str = str(ROOT / "site/_build/html")) -> int:
    for edition in ("", *sorted(path.parent.name for path in ROOT.glob("translations/*/edition.json"))):
        options = ["-q", "-W", "--keep-going", "-b", "html", "-c", ROOT / "site", "-d", f"{out}.doctrees/{edition}"]
        command = [sys.executable, "-m", "sphinx", *options, ROOT, Path(out) / edition]
        if failed := subprocess.run(command, env=os.environ | {"EDITION": edition}).returncode:
            return failed
    print(Path(out) / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
