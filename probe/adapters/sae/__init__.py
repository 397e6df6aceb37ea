"""SAEs: ``folders`` reads and writes them, ``train`` trains them, ``insertion`` puts them into a model."""
