"""The report of ``probe anchors``: the sentences of traces, shaded by how much the answer depends on them."""
