"""``probe pairs``."""


def pairs() -> None:
    """Show the model pairs that ship with probe.

    Example: probe pairs
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from probe.models import list_pairs

    table = Table("pair", "base", "thinking", "problems", "", box=SIMPLE_HEAD, show_edge=False)
    for pair in list_pairs():
        cells = (pair.name, pair.base.path, pair.thinking.path, pair.problems or "–", pair.description)
        table.add_row(*map(Text, cells))
    Console().print(table)
