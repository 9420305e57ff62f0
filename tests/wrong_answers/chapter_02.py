"""Wrong answers to chapter 02's exercises: what is replaced in the solution, by what, a part of the hint."""

DIVIDED = "((h @ w2.T + b2).softmax(1) - F.one_hot(labels, len(b2))) / len(labels)"
UNDIVIDED = "(h @ w2.T + b2).softmax(1) - F.one_hot(labels, len(b2))"
SUMS = "g_z.T @ x, g_z.sum(0), g_logits.T @ h, g_logits.sum(0)"

WRONG = [
    ("02.1", " - products[0]", "", "the gradient of the images"),
    ("02.1", "2 * forward - products[0]", "forward", "What carries the gradient further back?"),
    ("02.1", " - products[0]", " - products[-1]", "Which one has a single one?"),
    ("02.1", "[2 * batch", "[batch", "are two operations"),
    ("02.1", "[2 * batch * m", "[2 * m", "That is for one image"),
    ("02.1", "forward, 2 * forward - products[0]", "2 * forward - products[0], forward", "the wrong way round"),
    ("02.1", "2 * forward - products[0]", "3 * forward - products[0]", "That is the whole step"),
    ("02.1", "sum(products)", "products[0] + products[-1]", "What is between two hidden layers?"),
    ("02.1", "sum(products)", "products[0]", "the first layer alone"),
    ("02.1", "m * n for", "m * n + batch * n for", "The biases are counted, too"),
    ("02.1", "return forward, ", "return ", "but two numbers are asked for"),
    ("02.2", "return 4 * numbers", "return numbers", "has four bytes"),
    ("02.2", "+ m * n + n ", "+ m * n ", "What else does a linear layer fetch"),
    ("02.2", "+ m * n + n ", "", "The weights and biases have to be fetched"),
    ("02.2", "m * n + n ", "batch * m * n + n ", "once for the whole batch"),
    ("02.2", "m * n + n ", "batch * (m * n + n) ", "weights and biases are fetched once"),
    (
        "02.2",
        "        numbers += 2 * batch * n  # the ReLU fetches that, and writes it anew\n"
        "    numbers -= 2 * batch * widths[-1]  # there is none after the last layer\n",
        "",
        "The ReLU is an operation of its own",
    ),
    (
        "02.2",
        "    numbers -= 2 * batch * widths[-1]  # there is none after the last layer\n",
        "",
        "would leave no logit",
    ),
    (
        "02.2",
        "        numbers += 2 * batch * n  # the ReLU fetches that, and writes it anew\n"
        "    numbers -= 2 * batch * widths[-1]",
        "        numbers += batch * n\n    numbers -= batch * widths[-1]",
        "One of a hidden layer's four is missing",
    ),
    ("02.2", "return 4 * numbers", "4 * numbers", "It gives None"),
    ("02.3", DIVIDED, UNDIVIDED, "of w1, b1, w2, b2 are wrong. They are those of the sum of the images' losses"),
    ("02.3", " * (z > 0)", "", "of w1, b1 are wrong. The gradient comes back through the ReLU everywhere"),
    ("02.3", "g_z.sum(0)", "g_z.mean(0)", "of b1 are wrong. That of b1 is averaged"),
    ("02.3", "g_logits.sum(0)", "g_logits.mean(0)", "of b2 are wrong. That of b2 is averaged"),
    ("02.3", "z > 0", "z >= 0", "exactly 0"),
    ("02.3", SUMS, "g_z.T @ x, g_z.mean(0), g_logits.T @ h, g_logits.mean(0)", "of b1 is averaged over the batch. The"),
    (
        "02.3",
        DIVIDED,
        f"({UNDIVIDED}) / len(labels) ** 0.5",
        "Compare line by line",
    ),
    ("02.3", "g_z.T @ x,", "x.T @ g_z,", "The gradient of w1 is ["),
    ("02.3", f"return {SUMS}", SUMS, "Is the return there?"),
]
