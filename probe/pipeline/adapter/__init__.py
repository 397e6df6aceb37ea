"""``probe adapter``, one module a command: ``tune`` (also verify and attach), ``sae``, ``study``, ``export``.

``config`` and ``study_config`` hold settings, ``inputs`` finds models, SAE and texts, ``report`` writes the results.
"""
