"""Wrong answers to chapter 06's exercises: what is replaced in the solution, by what, a part of the hint."""

CLOSED = "return -(-weights // image) if image > 0 else None"
RUNNING = "    found, running = {}, []"
FITS = "if cause not in parts and abs(whole - seconds - gap) <= allowed:"
WRONG = [
    ("06.1", "    gap, allowed", "    return min(without, key=without.get)\n    gap, allowed", "it was found before"),
    ("06.1", "cause not in parts and ", "", "it was found before"),
    ("06.1", FITS, "if cause not in parts:", "as switching that one off saves"),
    ("06.1", FITS, "if cause not in parts and abs(seconds - gap) <= allowed:", "as switching that one off saves"),
    ("06.1", "abs(gap) <= allowed", "gap == 0", "Less than 5 % of the whole is missing"),
    (
        "06.1",
        'return "unexplained"',
        "return max(without.keys() - parts, key=without.get)",
        "that are left saves as much",
    ),
    ("06.1", '    return "unexplained"', "", "It gives None, which is no cause"),
    ("06.2", "(inputs + outputs)", "inputs", "The result, [B, outputs], is written"),
    ("06.2", "(inputs + outputs)", "outputs", "The images, [B, inputs], are read"),
    ("06.2", "-(-weights // image)", "1", "The weights are read, too, once a batch"),
    (
        "06.2",
        "    weights = ridge * 4",
        "    image, weights = 2 * inputs * outputs - ridge * (inputs + outputs), ridge",
        "four bytes",
    ),
    ("06.2", "= 2 * inputs", "= inputs", "An addition comes with every multiplication"),
    ("06.2", "= 2 * inputs", "= -inputs", "it says that no batch has as many, but"),
    ("06.2", "-(-weights // image)", "weights // image", "has only"),
    ("06.2", "-(-weights // image)", "weights // image + 1", "have as many, but"),
    ("06.2", "-(-weights // image)", "weights / image", "a batch is a whole number"),
    ("06.2", CLOSED, "return max(1, -(-weights // (image or 1)))", "No batch has as many as that"),
    ("06.3", "            found[running[-1][0]] -= end - start", "            pass", "that time is not its own"),
    (
        "06.3",
        "            found[running[-1][0]] -= end - start",
        "            for caller, _ in running:\n                found[caller] -= end - start",
        "through linear alone",
    ),
    ("06.3", "found.get(name, 0) + end", "end", "There are two of mm"),
    ("06.3", "running[-1][1] <= start", "running[-1][1] < start", "begins as the first one ends"),
    (
        "06.3",
        "            found[running[-1][0]] -= end - start",
        "            found[running[-1][0]] -= (end - start) * (name != running[-1][0])",
        "add calls itself",
    ),
    (
        "06.3",
        "sorted(events, key=lambda event: (event[1], -event[2]))",
        "events",
        "not in the order in which they began",
    ),
    ("06.3", "key=lambda event: (event[1], -event[2])", "key=lambda event: event[1]", "in the same moment as step"),
    ("06.3", "    return found", "    return list(found.values())", "should give a dictionary with the names"),
]
