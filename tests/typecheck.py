"""The type checker that checks the annotations of every function of the package while the tests run.

It is beartype, which here accepts an int where a float is expected, as Python does.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
