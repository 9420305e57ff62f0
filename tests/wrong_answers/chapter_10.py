"""Wrong answers to chapter 10's exercises: what is replaced in the solution, by what, a part of the hint."""

LINES = """    temporary = path.with_name(f"{path.name}.new")
    write(temporary)
    os.replace(temporary, path)
"""
RENAME = "os.replace(temporary, path)"
WRONG = [
    ("10.1", "(rank - step) % ranks", "(rank + step) % ranks", "so it must be a whole sum"),
    ("10.1", "(rank - step) % ranks", "rank", "it would count twice"),
    ("10.1", "(rank - step) % ranks", "step % ranks", "so it must be a whole sum"),
    ("10.1", "(rank - step) % ranks", "rank - step", "Is % ranks missing?"),
    ("10.1", "(rank - step) % ranks", "(rank - step % (ranks - 1)) % ranks", "with the gradients of 1 rank in it"),
    ("10.1", "(rank - step)", "(rank - min(step, ranks - 1))", "does not have the sum of chunk"),
    ("10.1", "return (rank - step) % ranks", "print(rank)", "a chunk's number is a whole one"),
    (
        "10.2",
        LINES,
        "    write(path)\n",
        "write is told to write to model.pt itself: a crash",
    ),
    ("10.2", 'path.with_name(f"{path.name}.new")', 'path.with_suffix(".tmp")', "to model.tmp itself"),
    ("10.2", RENAME, "path.unlink(missing_ok=True)\n    " + RENAME, "without any model.pt"),
    (
        "10.2",
        LINES,
        "    backup = path.with_name(path.name + '.bak')\n"
        "    if path.exists():\n        os.rename(path, backup)\n"
        "    write(path)\n    backup.unlink(missing_ok=True)\n",
        "without any model.pt",
    ),
    (
        "10.2",
        RENAME,
        "import shutil\n    shutil.copy(temporary, path)\n    temporary.unlink()",
        "is overwritten, which takes",
    ),
    ("10.2", RENAME, "path.write_bytes(temporary.read_bytes())\n    temporary.unlink()", "a crash then leaves 0 of"),
    (
        "10.2",
        RENAME,
        "os.link(temporary, path) if not path.exists() else " + RENAME,
        "Afterwards model.pt.new is left in the folder",
    ),
    ("10.2", RENAME, "", "is still the old checkpoint"),
    ("10.2", 'path.with_name(f"{path.name}.new")', "Path(tempfile.mkdtemp()) / path.name", "to another folder"),
    ("10.2", "write(temporary)\n    " + RENAME, "pass", "write is not called"),
    (
        "10.2",
        "    write(temporary)\n    " + RENAME,
        "    try:\n        write(temporary)\n    finally:\n        " + RENAME,
        "though the disk was full before write was done: a crash then leaves 700",
    ),
    (
        "10.2",
        "    write(temporary)\n    " + RENAME,
        "    try:\n        write(temporary)\n        " + RENAME + "\n    except OSError:\n        temporary.unlink()",
        "the error does not reach the training",
    ),
    (
        "10.3",
        "losses.sum() * len(counts) / sum(counts)",
        "losses.mean()",
        "19 images count as much as another rank's 20",
    ),
    ("10.3", "* len(counts) / sum(counts)", "/ max(1, len(losses))", "19 images count as much as another rank's 20"),
    ("10.3", " * len(counts)", "", "5 times too small"),
    ("10.3", " / sum(counts)", "", "96 times too large"),
    ("10.3", " * len(counts) / sum(counts)", "", "divided by the ranks, not by the images"),
    ("10.3", "losses.sum()", "losses.mean() * len(losses)", "What is the mean of no losses?"),
    ("10.3", "sum(counts)", "sum(counts) if len(losses) else 0.0", "the other ranks would wait for its gradients"),
    ("10.3", "losses.sum()", "losses", "gives [20] numbers"),
    ("10.3", "return losses.sum()", "losses.sum()", "gives None"),
]
