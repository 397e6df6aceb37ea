"""The checker that holds every function of the package to its annotations while the tests run.

Beartype, with Python's own rule that a whole number will do where a float is asked for.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
