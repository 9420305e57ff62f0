"""Wrong answers to chapter 01's exercises: what is replaced in the solution, by what, a part of the hint."""

TIMED = """    start = clock()
    operation()
    wait()
    return clock() - start"""
CLEARED = "    wait()  # for its work, and for all that was in the queue before\n"
WARM = "    operation()  # the first call may set things up\n" + CLEARED
ORDER = '["matrix times vector", "sum", "copy", "product"]'
CAUGHT = """        try:
            if compute(device) == 64**3:
                return device
        except RuntimeError:  # there, and without kernels: the next may have them
            pass
"""

WRONG = [
    ("01.1", "    operation()\n    wait()\n    return", "    operation()\n    return", "it timed the asking"),
    ("01.1", WARM, "", "of work were still in the queue, of an earlier user"),
    ("01.1", WARM, "    wait()\n", "The first call of the operation is in it"),
    (
        "01.1",
        "    wait()  # for its work, and for all that was in the queue before\n",
        "",
        "in the queue, of the warm-up",
    ),
    (
        "01.1",
        WARM + TIMED,
        "    wait()\n    found = []\n    for _ in range(2):\n        start = clock()\n        operation()\n"
        "        wait()\n        found.append(clock() - start)\n    return sum(found) / 2",
        "The first call of the operation is in it",
    ),
    (
        "01.1",
        "    operation()\n    wait()\n",
        "    for _ in range(9):\n        operation()\n    wait()\n",
        "Time one alone",
    ),
    ("01.1", "return clock() - start", "return (clock() - start) * 1000", "Are these seconds"),
    ("01.1", "return clock() - start", "clock() - start", "It gives None"),
    ("01.1", TIMED, "    return clock()", "The clock was read 1 time;"),
    ("01.1", TIMED, "    start = clock()\n    return clock() - start", "the operation was not called"),
    ("01.2", ORDER, f"{ORDER}[::-1]", "is put before"),
    ("01.2", ORDER, '["sum", "matrix times vector", "copy", "product"]', "Both meet the ceiling of bytes"),
    ("01.2", ORDER, '["matrix times vector", "sum", "product", "copy"]', "The product meets the ceiling of operations"),
    ("01.2", ORDER, '["copy", "sum", "matrix times vector", "product"]', "does 0 million operations and moves 34 MB"),
    ("01.2", ORDER, '["matrix times vector", "sum", "copy"]', "these four, each once"),
    ("01.2", ORDER, '"product"', "these four, each once"),
    ("01.3", CAUGHT, "        if compute(device) == 64**3:\n            return device\n", "nothing catches the error"),
    ("01.3", "if compute(device) == 64**3:", "if compute(device):", "is that number looked at?"),
    ("01.3", "if compute(device) == 64**3:", "if compute(device) >= 64**3:", "is that number looked at?"),
    ("01.3", "            pass", "            return device", "its error was caught, but what then?"),
    ("01.3", "            pass", "            break", "gpu:1 works"),
    ("01.3", "    for device in devices:", "    for device in devices[::-1]:", "is the first that does"),
    ("01.3", '    return "cpu"', "    return None", "it should be the CPU"),
    ("01.3", '    return "cpu"', "    return devices[0]", "It stops in line"),
]
