"""How the package is built: three groups, arrows between them in one direction, and no circles."""

import ast
from pathlib import Path

import mnist_gpu

PACKAGE = Path(mnist_gpu.__file__).parent
FILES = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}
MAY_USE = {"training": {"training"}, "faster": {"training", "faster"}, "measuring": {"training", "faster", "measuring"}}
MAY_USE["exercises"] = {*MAY_USE["measuring"], "exercises"}  # which nothing else uses
MAY_USE["chapters"] = {*MAY_USE["measuring"], "chapters"}


def group(module: str) -> str:
    """The folder that a module lies in; what lies in none is of the training."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_USE else "training"


def imports(path: Path, modules) -> set[str]:
    """The modules of the package that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in modules else node.module for name in names)
    return {name for name in found if name.split(".")[0] == "mnist_gpu"}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, or []."""
    done = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        done.add(module)
        return next((c for other in sorted(graph[module]) if (c := visit(other, [*path, module]))), [])

    return next((c for module in graph if (c := visit(module, []))), [])


GRAPH = {module: imports(path, FILES) & FILES.keys() for module, path in FILES.items()}


def test_what_a_file_imports_is_there():
    for module, path in FILES.items():
        assert imports(path, FILES) <= FILES.keys() | {
            "mnist_gpu",
            "mnist_gpu.faster",
            "mnist_gpu.measuring",
            "mnist_gpu.chapters",
        }, module


def test_the_training_uses_neither_of_the_others_and_what_is_faster_uses_no_measurement():
    wrong = [
        f"{module} uses {other}"
        for module, others in GRAPH.items()
        for other in others
        if module != "mnist_gpu.__main__" and group(other) not in MAY_USE[group(module)]  # the command line hands over
    ]
    assert not wrong
    used = {(group(module), group(other)) for module, others in GRAPH.items() for other in others}
    assert {("measuring", "faster"), ("measuring", "training"), ("faster", "training")} <= used  # it sees the arrows


def test_there_is_no_circle_of_imports():
    assert circle(GRAPH) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_a_newcomer_sees_few_files_and_each_says_first_what_is_at_home_in_it():
    assert len(list(PACKAGE.glob("*.py"))) <= 12
    for module, path in FILES.items():
        sentence = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        assert sentence.endswith("."), f"{module} does not begin with a sentence"
