"""``probe pairs``."""

from probe.cli.common import plain_table, show


def pairs() -> None:
    """List the model pairs that ship with probe.

    Example: probe pairs
    """
    from probe.models import list_pairs

    rows = [(p.name, p.base.path, p.thinking.path, p.problems or "–", p.description) for p in list_pairs()]
    show(plain_table(("pair", "base", "thinking", "problems", ""), rows))
