"""Wrong answers to chapter 05's exercises: what is replaced in the solution, by what, a part of the hint."""

PAIRED = "sorted(x / y for x, y in zip(a, b))"
WRONG = [
    (
        "05.1",
        "    ratios = ",
        "    return 'a' if sorted(a)[5] < sorted(b)[5] else 'b'\n    ratios = ",
        "that is no claim yet",
    ),
    ("05.1", "    ratios = ", "    return 'a' if min(a) < min(b) else 'b'\n    ratios = ", "that is no claim yet"),
    ("05.1", PAIRED, "[0, sorted(a)[1] / sorted(b)[-2], *[1] * 6, sorted(a)[-2] / sorted(b)[1], 9]", "they are a pair"),
    ("05.1", "sorted(x / y", "list(x / y", "Some rounds say a, some say b"),
    ("05.1", "zip(a, b)", "zip(b, a)", "1: a takes less time"),
    ("05.1", PAIRED, f"{PAIRED}\n    ratios[1], ratios[-2] = ratios[0], ratios[-1]", "One disturbed round"),
    ("05.1", PAIRED, f"{PAIRED}\n    ratios[1], ratios[-2] = ratios[2], ratios[-3]", "one ratio at each end, not two"),
    ("05.1", "ratios[1] > 1", "ratios[1] >= 1", "an interval that ends at 1 has 1 in it"),
    ("05.1", 'else "neither"', "else None", 'It gives None, but the answer is "a", "b" or "neither"'),
    ("05.2", "        function()  # warm up", "        pass", "a first call, which sets things up"),
    ("05.2", "            wait()\n            start", "            start", "still at work on earlier ones"),
    ("05.2", "            wait()\n            found", "            found", "the asking alone, not the work"),
    ("05.2", "range(rounds)", "range(rounds - 1)", "9 times of 10 rounds"),
    ("05.2", "return seconds", "return [sum(s) for s in seconds]", "should give a list"),
    ("05.2", "return seconds", "return seconds[::-1]", "the seconds of a are those of b"),
    (
        "05.2",
        "    for _ in range(rounds):\n        for function, found in zip((a, b), seconds):",
        "    for function, found in zip((a, b), seconds):\n        for _ in range(rounds):",
        "which of the two is always timed later",
    ),
    ("05.3", "    width_that_pays = width", "    width_that_pays = 128", "below the answer, more threads pay already"),
    ("05.3", "    width_that_pays = width", "    pass", "At width 32, below the answer"),
    ("05.3", "    width_that_pays = width", "    width_that_pays = 64", "should be one of 32, 128, 512, 2048"),
]
