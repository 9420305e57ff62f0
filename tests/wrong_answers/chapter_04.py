"""Wrong answers to chapter 04's exercises: what is replaced in the solution, by what, a part of the hint."""

ZERO = "    optimizer.zero_grad()\n"
STEP = "    loss.backward()\n    optimizer.step()\n"
CLIP = "        nn.utils.clip_grad_norm_(model.parameters(), largest)\n"
CLIPPED_STEP = CLIP + "        optimizer.step()\n"
BACKWARD = "        loss.backward()\n"
EACH = "        for p in model.parameters():\n            nn.utils.clip_grad_norm_([p], largest)\n"
NORM = "        norm = nn.utils.get_total_norm([p.grad for p in model.parameters()])\n"
SHORTEN = "        for p in model.parameters():\n            p.grad.mul_(%s)\n"
IF_LONGER = "        if norm > largest:\n" + (SHORTEN % "largest / norm").replace("        ", "            ")
SUM = '            total += F.cross_entropy(model(images), labels, reduction="sum")\n'
COUNT = "            count += len(labels)\n"

WRONG = [
    ("04.1", STEP, "    optimizer.step()\n", "there is no gradient"),
    (
        "04.1",
        STEP,
        "    loss.backward()\n" + ZERO + "    optimizer.step()\n",
        "what became of it before the update",
    ),
    ("04.1", STEP, "    loss.backward()\n", "There is a gradient, but no weight has changed"),
    ("04.1", STEP, "    optimizer.step()\n    loss.backward()\n", "nothing used it once it was there"),
    ("04.1", ZERO, "", "the gradients of the steps before are still in this one"),
    ("04.1", "loss.detach()", "loss", "still carries its graph"),
    ("04.1", "loss.detach()", "loss.item()", "is a number of Python's"),
    (
        "04.1",
        "loss.detach()",
        "torch.tensor(loss.item(), device=loss.device)",
        "By .item() or an if, a number is fetched",
    ),
    ("04.1", "return loss.detach()", "loss.detach()", "The step gives None"),
    ("04.1", "loss.detach()", "F.cross_entropy(model(images), labels).detach()", "before the update"),
    ("04.2", CLIP, "", "nothing was limited"),
    ("04.2", BACKWARD + CLIP, CLIP + BACKWARD, "Are there gradients already where it is done?"),
    ("04.2", CLIPPED_STEP, "        optimizer.step()\n" + CLIP, "limited after the optimizer had used them"),
    ("04.2", CLIP, EACH, "each tensor was limited by itself"),
    ("04.2", "clip_grad_norm_", "clip_grad_value_", "each number was limited by itself"),
    ("04.2", CLIP, NORM + SHORTEN % "largest / norm", "What is short enough has to stay"),
    ("04.2", CLIP, NORM + SHORTEN % "(largest / norm**2).clamp(max=1)", "or by its square?"),
    ("04.2", CLIP, NORM + IF_LONGER, "By .item() or an if"),
    ("04.2", "        optimizer.zero_grad()\n", "", "Does it forget the gradients of the step before?"),
    ("04.2", "        optimizer.step()\n", "", "five lines are missing"),
    ("04.2", "loss.detach()", "loss.item()", "is a number of Python's"),
    ("04.2", "loss.detach()", "loss", "still carries its graph"),
    ("04.2", "    return step\n", "", "Is the return there?"),
    ("04.3", "float(total) / count", "float(total) / len(batches)", "divided by the number of batches"),
    ("04.3", 'labels, reduction="sum")', "labels)", "divided by the number of images"),
    (
        "04.3",
        SUM + COUNT,
        "            total += F.cross_entropy(model(images), labels)\n            count += 1\n",
        "2 images of the last batch count as much as the 7",
    ),
    ("04.3", "count += len(labels)", "count += 1", "divided by the number of batches"),
    ("04.3", "float(total) / count", "float(total)", "the sum of all losses"),
    ("04.3", "    model.eval()\n", "", "dropout leaves out other units"),
    (
        "04.3",
        "    with torch.no_grad():\n        for images, labels in batches:\n" + SUM,
        "    if True:\n        for images, labels in batches:\n" + SUM.replace('"sum")', '"sum").item()'),
        "Gradients were recorded",
    ),
    (
        "04.3",
        "    model.train(training)\n",
        "",
        "came in its mode for training, and was left",
    ),
    ("04.3", "model.train(training)", "model.train()", "came in its mode for evaluation"),
    ("04.3", "    return float", "    float", "It gives None"),
]
