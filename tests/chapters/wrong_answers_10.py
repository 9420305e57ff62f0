"""Wrong answers to chapter 10's exercises, each with a part of its hint."""

import os

from wrong import WrongAnswers

wrong = WrongAnswers()
wrong.value("10.1", "which is no whole sum", lambda rank, step, ranks: (rank + step) % ranks)
wrong.value("10.1", "they would count twice", lambda rank, step, ranks: rank)
wrong.value("10.1", "Is % ranks missing?", lambda rank, step, ranks: rank - step)
wrong.value("10.1", "does not have the sum of chunk", lambda rank, step, ranks: (rank - min(step, ranks - 1)) % ranks)


def beside(path):
    return path.with_name(f"{path.name}.new")


@wrong("10.2", "model.pt has 0 of 1,500 bytes")
def onto_a_copy(path, write):
    write(beside(path))
    with open(path, "wb") as file:
        write(file)
    beside(path).unlink()


@wrong("10.2", "model.tmp has 0 of 1,500 bytes")
def suffix(path, write):
    write(path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


@wrong("10.2", "model.pt does not exist for a moment")
def removed_first(path, write):
    write(beside(path))
    path.unlink(missing_ok=True)
    os.rename(beside(path), path)


@wrong("10.2", "model.pt is the old checkpoint, and the folder has: model.pt, model.pt.new")
def not_renamed(path, write):
    write(beside(path))


@wrong("10.2", "With the disk full, model.pt has 700 of 1,500 bytes")
def renamed_in_any_case(path, write):
    try:
        write(beside(path))
    finally:
        os.replace(beside(path), path)


@wrong("10.2", "the error does not reach the training")
def silent(path, write):
    try:
        write(beside(path))
        os.replace(beside(path), path)
    except OSError:
        beside(path).unlink()


wrong.value("10.3", "counts too much", lambda losses, counts: losses.sum() / max(1, len(losses)))
wrong.value("10.3", "DDP divides by the number of ranks, too", lambda losses, counts: losses.sum() / sum(counts))
wrong.value("10.3", "divided by the ranks, not by the images", lambda losses, counts: losses.sum())


@wrong("10.3", "What is the mean of no losses?")
def mean_of_nothing(losses, counts):
    return losses.mean() * len(losses) * len(counts) / sum(counts)


@wrong("10.3", "no .backward(): the other ranks would wait")
def nothing_of_no_images(losses, counts):
    return losses.sum() * len(counts) / sum(counts) if len(losses) else 0.0
