"""``probe anchors``: which sentences of a trace its answer depends on."""
