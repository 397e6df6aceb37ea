"""Reports of one adapter and of a study: ``page``, ``figures``, ``rows`` (cells of tables), ``tables`` (terminal)."""
