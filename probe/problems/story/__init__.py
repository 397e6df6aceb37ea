"""The bundled story problems: the grammar of their questions and traces, a writer and a parser for it."""
