"""``probe circuits``: the circuit of one behaviour."""
