"""SAEs: ``reading`` and ``folders`` (writing, controls), ``plain`` (which are usable), ``train`` and ``insertion``."""
