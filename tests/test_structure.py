"""How the package is built: six groups, arrows between them in one direction, rooms apart, no circles, short files."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import mnist_gpu

PACKAGE = Path(mnist_gpu.__file__).parent
ROOF = {"__main__", "benchmark", "gpu", "run"}
LAYERS = ("webgpu", "training", "faster", "measuring", "chapters", "roof")  # each may use itself, and those before it


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def layer(module: str) -> int:
    """By the folder that a module lies in. What lies in none is of the training, or of the roof."""
    name = [*module.split("."), ""][1]
    return LAYERS.index("roof" if name in ROOF else name if name in LAYERS[:-1] else "training")


def used_by(tree: ast.AST) -> set[str]:
    """The dotted names that a file imports, at its top or in a function, or writes as attributes of something."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    return found


def imports(tree: ast.AST) -> set[str]:
    """The modules of the package that a file imports."""
    ours = [name for name in used_by(tree) if name.split(".")[0] == "mnist_gpu"]
    return {name if name in FILES else name.rpartition(".")[0] for name in ours}


GRAPH = {module: imports(tree) for module, tree in TREES.items()}
ARROWS = [(module, other) for module, others in GRAPH.items() for other in others]


def rooms(*modules: str) -> set[str]:
    """The chapters that modules belong to."""
    return {module.split(".")[2] for module in modules if module.startswith("mnist_gpu.chapters.")}


def test_the_arrows_go_from_the_roof_to_the_training():
    assert [f"{module} uses {other}" for module, other in ARROWS if layer(other) > layer(module)] == []
    used = {(LAYERS[layer(module)], LAYERS[layer(other)]) for module, other in ARROWS}
    assert {("roof", "chapters"), ("chapters", "measuring"), ("measuring", "faster"), ("faster", "webgpu")} <= used


def test_a_chapter_uses_no_other_chapters_room():
    assert "mnist_gpu.chapters.chapter_05" in FILES and rooms(*FILES) == {f"chapter_{n:02}" for n in range(1, 13)}
    assert [(module, other) for module, other in ARROWS if rooms(module) and len(rooms(module, other)) > 1] == []


def test_there_is_no_circle_of_imports():
    TopologicalSorter(GRAPH).prepare()  # raises CycleError with the circle


def test_each_file_is_short_and_says_first_what_is_at_home_in_it():
    for module, path in FILES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, f"{module} is long"
        sentence = (ast.get_docstring(TREES[module]) or "").split("\n\n")[0]
        assert sentence.endswith("."), f"{module} does not begin with a sentence"


def test_functions_are_short():
    long = {
        f"{module}.{node.name}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 40
        if not any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)  # a kernel is one program
    }
    assert long == set()


def test_private_parts_of_pytorch_are_used_in_one_file():
    private = re.compile(r"torch\.(\w+\.)*_(?!_)")
    at = {module: {name for name in used_by(tree) if private.match(name)} for module, tree in TREES.items()}
    assert "torch.utils._pytree.tree_leaves" in at.pop("mnist_gpu.torch_private")
    assert {module: names for module, names in at.items() if names} == {}


def test_the_training_brings_no_instrument_along():
    code = "import sys, mnist_gpu.training; print(*sys.modules, sep='\\n')"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=PACKAGE.parent, encoding="utf-8").split()
    assert "mnist_gpu.training" in loaded
    assert [m for m in loaded if m == "matplotlib" or (m in FILES and layer(m) != LAYERS.index("training"))] == []
    assert "mnist_gpu.torch_private" not in loaded
