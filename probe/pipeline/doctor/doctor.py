"""Looks at the installation and at the machine."""

from probe.pipeline.doctor.diagnosis import Diagnosis
from probe.pipeline.doctor.machine import disk, environment, hub, machine
from probe.pipeline.doctor.packages import extras, packages


def doctor() -> Diagnosis:
    """Find out what is installed, what this machine has, and what is wrong, in a few seconds.

    Versions are compared with the ranges that probe supports. Only torch and transformers are imported. Nothing that
    may be secret is returned: of a token, only that there is one.

    Returns:
        Everything that was looked at. Whether all is well is ``not diagnosis.wrong``.
    """
    return Diagnosis((*packages(), *extras(), *machine(), *disk(), *hub(), *environment()))
