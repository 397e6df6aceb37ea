"""``probe pairs``."""

from probe.cli.common import show


def pairs() -> None:
    """List the model pairs that ship with probe.

    Example: probe pairs
    """
    from probe.models import list_pairs
    from probe.reports import terminal_table

    rows = [(p.name, p.base.path, p.thinking.path, p.problems or "–", p.description) for p in list_pairs()]
    columns = ("pair", "base", "thinking", "problems", "")
    show(terminal_table(columns, rows, left=len(columns), wrap=True))
