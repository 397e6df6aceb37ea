"""The exception for a mistake of the user."""


class ProbeError(Exception):
    """A request that cannot be fulfilled, because of a mistake of the user or a missing file, package or device.

    The message is one line: what is wrong, where, and what to do. The command line prints it and exits with code 2. Any
    other exception is a bug in probe.
    """


class NotApplicable(ProbeError):
    """This measurement cannot be made on this model or these texts, though other measurements may be."""
