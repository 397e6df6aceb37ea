"""Two contracts for import-linter: rooms import only public names of other rooms, and imports make no circle."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output

ROOT = Path(__file__).parents[1]


def room_of(module: str) -> str:
    """The room of a module of ``probe``; a file directly in ``probe`` is a room of its own."""
    return ".".join(module.split(".")[:2])


def imports_of(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line, module and names of every import from ``probe`` in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "probe":
            yield node.lineno, node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "probe":
                    yield node.lineno, alias.name, []


class PublicFaces(Contract):
    """Across rooms only what a room's ``__init__`` names is imported, and nothing private."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002
        """Check every import statement of the package, also inside functions."""
        wrong = []
        for path in sorted((ROOT / "probe").rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for line, source, names in imports_of(path):
                if source == "probe" or room_of(source) == room_of(module):
                    continue
                private = [name for name in names if name.startswith("_")]
                if private or source != room_of(source):
                    wrong.append(f"{path.relative_to(ROOT)}:{line} imports {', '.join(names)} from {source}")
        return ContractCheck(kept=not wrong, metadata={"wrong": wrong})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print every import that breaks the contract."""
        for each in check.metadata["wrong"]:
            output.print_error(each)


class NoCircles(Contract):
    """No file imports itself through others, counting deferred imports and those for type checkers."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002
        """Find every set of modules that import each other."""
        reached = {module: graph.find_modules_directly_imported_by(module) for module in sorted(graph.modules)}
        return ContractCheck(kept=not (circles := strong_components(reached)), metadata={"circles": circles})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the files of every circle."""
        for circle in check.metadata["circles"]:
            output.print_error(" and ".join(circle) + " import each other")


def strong_components(reached: dict[str, set[str]]) -> list[list[str]]:
    """Return every set of two or more nodes that all reach each other."""
    import networkx

    graph: Any = networkx.DiGraph([(node, other) for node, others in reached.items() for other in others])
    return [sorted(each) for each in networkx.strongly_connected_components(graph) if len(each) > 1]
