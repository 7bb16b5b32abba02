"""One exception family for everything that a user can cause or mend.

A message is one sentence: what is wrong, with which file, what to do. It reaches
the viewer as a notification and the shell as one line with exit code 2. Anything
else that is raised is a fault of this package.
"""


class CovsegError(Exception):
    """Base of all errors that a user can cause; its text is shown as it is."""


class ScanError(CovsegError):
    """A file or folder that cannot be read, or written, as a chest CT scan."""


class CaseError(CovsegError):
    """A workspace or case that cannot be opened, read or written."""


class ModelError(CovsegError):
    """A model file that cannot be read, or a model that does not fit the task."""


class JobError(CovsegError):
    """A job that cannot start, or that its child process could not finish."""


class EditError(CovsegError):
    """A correction that cannot be made: there is nothing there, or its settings make no sense."""
