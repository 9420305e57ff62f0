"""Wrong answers to chapter 07's exercises: what is replaced in the solution, by what, a part of the hint."""

STEP = "make_step(model, sgd(model, fused=True))"
OPTIMIZER = "sgd(model, fused=True)"
NOT_RESET = """make_step(model, sgd(model))
    optimizer = sgd(model)

    def step(images, labels):
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

"""
WRONG = [
    (
        "07.1",
        "make_model(hidden, device",
        "make_model(hidden, seed=1, device",
        "the weights that make_model(hidden) gives",
    ),
    ("07.1", "make_model(hidden, device", "make_model(device", "the weights that make_model(hidden) gives"),
    ("07.1", '("memory", device', '("memory", seed=1, device', "Its first batch has other images"),
    (
        "07.1",
        STEP,
        f"(lambda images, labels, step={STEP}: step(images * 0.5, labels))",
        "less precision, or another loss",
    ),
    (
        "07.1",
        "return Training(model, step, batches)",
        "return Training(model, step, [(x / 2 + 0.5, y) for x, y in batches])",
        "other pixels: they go from -1 to 1",
    ),
    ("07.1", OPTIMIZER, "torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)", "the learning rate is 0.01"),
    ("07.1", OPTIMIZER, "torch.optim.SGD(model.parameters(), lr=0.01)", "the momentum is 0.9"),
    ("07.1", STEP, NOT_RESET, "gradients begin at zero again"),
    (
        "07.1",
        "return Training(model, step, batches)",
        "return Training(model, step, [(x, y) for x, y in batches if len(y) == 128])",
        "468 steps instead of 469",
    ),
    ("07.1", "    return Training(model, step, batches)", "    return model", "It gives a MLP"),
    ("07.2", "        at[0].copy_(images)", "        pass", "trained on images of another one"),
    ("07.2", "        at[1].copy_(labels)", "        pass", "trained on labels of another one"),
    ("07.2", "return loss.clone()", "return loss", "all losses are the last one"),
    ("07.2", "return loss.clone()", "return loss.item()", "without waiting for its value"),
    ("07.2", "len(images) != len(at[0])", "False", "another size needs the plain step"),
    (
        "07.2",
        "        if len(images) != len(at[0]):\n            return step(images, labels)\n",
        "",
        "another size needs the plain step",
    ),
    (
        "07.2",
        "            return step(images, labels)",
        "            step(images, labels)",
        "another size needs the plain step",
    ),
    ("07.2", "        at[0].copy_(images)", "        step(images, labels)", "took the plain step: replay it"),
    ("07.2", "images.clone(), labels.clone()", "images, labels", "tensors of its own"),
    ("07.2", "        replay()", "        record(step, *at)[0]()", "records a second time"),
    ("07.2", "        replay()", "        replay()\n        replay()", "was trained on 2 times"),
    ("07.3", "-(-first_use // gain)", "first_use // gain", "it took"),
    ("07.3", "-(-first_use // gain)", "first_use // gain + 1", "but already after"),
    ("07.3", "-(-first_use // gain)", "-(-first_use // other)", "it took"),
    ("07.3", "max(1, -(-first_use // gain))", "first_use / gain", "but should say a whole number from 1"),
    ("07.3", "max(1, -(-first_use // gain))", "-(-first_use // gain)", "it says 0"),
    ("07.3", " if gain > 0 else None", "", "no epoch gains anything"),
    ("07.3", "gain > 0", "gain > 50", "it says that it never pays, but every epoch gains"),
]
