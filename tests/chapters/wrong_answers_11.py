"""Wrong answers to chapter 11's exercises, each with a part of its hint."""

from wrong import WrongAnswers

wrong = WrongAnswers()
wrong.value("11.1", "which is no whole sum", lambda rank, step, ranks: (rank + step) % ranks)
wrong.value("11.1", "they would count twice", lambda rank, step, ranks: rank)
wrong.value("11.1", "Is % ranks missing?", lambda rank, step, ranks: rank - step)
wrong.value("11.1", "does not have the sum of chunk", lambda rank, step, ranks: (rank - min(step, ranks - 1)) % ranks)
wrong.value("11.2", "counts too much", lambda losses, counts: losses.sum() / max(1, len(losses)))
wrong.value("11.2", "DDP divides by the number of ranks, too", lambda losses, counts: losses.sum() / sum(counts))
wrong.value("11.2", "divided by the ranks, not by the images", lambda losses, counts: losses.sum())


@wrong("11.2", "What is the mean of no losses?")
def mean_of_nothing(losses, counts):
    return losses.mean() * len(losses) * len(counts) / sum(counts)


@wrong("11.2", "no .backward(): the other ranks would wait")
def nothing_of_no_images(losses, counts):
    return losses.sum() * len(counts) / sum(counts) if len(losses) else 0.0
