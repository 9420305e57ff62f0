"""Wrong answers to chapter 03's exercises: what is replaced in the solution, by what, a part of the hint."""

WRONG = [
    ("03.1", "range(0, len(order), size)", "range(0, len(order) - size + 1, size)", "is missing: it has"),
    ("03.1", "order[i : i + size]", "(order + order[:size])[i : i + size]", "It stops in line"),
    ("03.1", "order[i : i + size]", "torch.cat([order, order])[i : i + size]", "are left: some come twice"),
    ("03.1", "range(0, len(order), size)", "range(0, len(order) + 1, size)", "a batch too many"),
    ("03.1", "labels[index]", "labels[i : i + size]", "labels of other images"),
    ("03.1", "index = order[i : i + size]", "index = torch.arange(len(order))[i : i + size]", "in another order"),
    ("03.2", "div(torch.full((), 127.5, device=images.device)) - 1", "mul(2 / 255) - 1", "rounds twice"),
    ("03.2", "div(torch.full((), 127.5, device=images.device)) - 1", "div(255)", "from 0 to 1"),
    ("03.2", ".unsqueeze(1)", "", "but should be [1, 1, 28, 28]"),
    ("03.2", "labels.index_select(0, index)", "labels[: len(index)]", "labels are not those"),
    ("03.2", "torch.arange(256, device", "torch.arange(256, dtype=torch.float64, device", "four bytes a pixel"),
    ("03.2", "table[pixels.int()]", "table[pixels]", "It stops in line 6 of its cell"),
    ("03.3", "-(-load // train)", "max(1, load // train)", "still waits for every batch"),
    ("03.3", "-(-load // train)", "load // train + 1", "3 workers would be, too"),
    ("03.3", "-(-load // train)", "load / train", "is a whole one"),
    ("03.3", "-(-load // train)", "-(-(load + train) // train)", "would be, too"),
]
