"""The one exception for a user's mistake."""


class ProbeError(Exception):
    """Something the user asked for cannot be done.

    The message is one line: what is wrong, where, and what to do. The command line prints it and exits with code 2;
    anything else that is raised is a fault of the toolkit.
    """
