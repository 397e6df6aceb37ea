"""The bundled story problems: their grammar, how it is written and how it is read back."""
