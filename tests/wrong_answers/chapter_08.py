"""Wrong answers to chapter 08's exercises: what is replaced in the solution, by what, a part of the hint."""

WARPS = "[sum(costs[s] for s in set(warp.tolist())) for warp in side.split(32)]"
PART = "(F.cross_entropy(model(some), theirs) * len(some) / len(images)).backward()"
WRONG = [
    ("08.1", "(1 + 4)", "4", "what is read is moved, too"),
    ("08.1", "(1 + 4)", "1", "what is written is moved, too"),
    ("08.1", "(1 + 4)", "8", "only what is written are four"),
    ("08.1", "28 * 28 * (1 + 4)", "5", "How many are in an image?"),
    ("08.1", "(cycles / clock)", "cycles", "how many seconds are they?"),
    ("08.1", "-(-in_flight // (28 * 28 * (1 + 4)))", "in_flight // (28 * 28 * (1 + 4))", "Is it rounded up"),
    ("08.1", "-(-in_flight // (28 * 28 * (1 + 4)))", "in_flight // (28 * 28 * (1 + 4)) + 1", "so fewer are enough"),
    ("08.1", "-(-in_flight // (28 * 28 * (1 + 4)))", "in_flight / (28 * 28 * (1 + 4))", "is a whole one"),
    ("08.1", "return -", "-", "it says None"),
    ("08.2", WARPS, "both_sides(side == 0, costs[0], costs[1])", "the last one is missing"),
    ("08.2", WARPS, "[sum(costs[s] for s in w.tolist()) / len(w) for w in side.split(32)]", "A warp is no average"),
    ("08.2", WARPS, "torch.tensor(costs)[side[: len(side) // 32 * 32]].view(-1, 32).sum(1)", "the last one is missing"),
    ("08.2", "sum(costs[s] for s in set(warp.tolist()))", "max(costs[s] for s in warp.tolist())", "follow one another"),
    ("08.2", "set(warp.tolist())", "warp.tolist()", "not once a lane"),
    ("08.2", "sum(costs[s] for s in set(warp.tolist()))", "sum(costs)", "that none of its lanes takes"),
    ("08.2", "sum(costs[s] for s in set(warp.tolist()))", "costs[warp[0]]", "does not decide"),
    ("08.2", WARPS, "[costs[s] for s in side.tolist()]", "but the list has 100 numbers"),
    ("08.2", WARPS, "[sum(costs[s] for s in set(side.tolist()))]", "but the list has 1 number:"),
    ("08.2", WARPS, "sum(costs[s] for s in set(side.tolist()))", "a list with a number for each warp"),
    ("08.3", "    model.zero_grad()\n", "", "before the batch is still in it"),
    ("08.3", " * len(some) / len(images)", "", "3 times too large"),
    ("08.3", "len(some) / len(images)", "1 / parts", "the parts' means count the same, though some parts have 6 and"),
    ("08.3", PART, "model.zero_grad()\n        " + PART, "only the last part's gradient is left"),
    ("08.3", " / len(images)", "", "the gradient of the losses' sum"),
    ("08.3", "zip(images.tensor_split(parts), labels.tensor_split(parts))", "[(images, labels)]", "12 images at once"),
    (
        "08.3",
        "    for some, theirs in zip(images.tensor_split(parts), labels.tensor_split(parts)):\n        " + PART,
        "    losses = [F.cross_entropy(model(some), theirs) * len(some) / len(images)\n"
        "              for some, theirs in zip(images.tensor_split(parts), labels.tensor_split(parts))]\n"
        "    sum(losses).backward()",
        "both parts' activations are kept",
    ),
    ("08.3", "labels.tensor_split(parts)):", "labels.tensor_split(parts)[1:]):", "the model gets 8 images in all"),
    ("08.3", ".backward()", "", "no part goes backward"),
]
