"""What ends a command over files; what is wrong with one picture is a row instead.

FilesError
+-- Unwritable      the results cannot be put where they belong: a full disk, say
+-- BadScores       a file of scores that is none, or not of this command with these options
+-- Missing         a part that is not installed
+-- ServerFailed    the server has no answers for reasons that are not the picture's
"""

from pathlib import Path


class FilesError(Exception):
    """The message is meant for the person at the terminal.

    Attributes:
        exit_code: 2 where the command cannot be carried out as it was given, 1 where it failed.
    """

    exit_code = 2


class Unwritable(FilesError):
    """The results cannot be put where they belong."""

    exit_code = 1

    def __init__(self, place: Path, error: OSError) -> None:
        super().__init__(f"{place} cannot be written: {error.strerror or error}")


class BadScores(FilesError):
    """A file of scores that is none, or that was made otherwise."""


class Missing(FilesError):
    """A part that is not installed.

    Args:
        what: to give to pip, where the repository is: none of it is in a package index, where its names may be others'.
    """

    def __init__(self, package: str, purpose: str, what: str = "'.[files]'") -> None:
        super().__init__(f"{purpose} needs {package}: pip install {what} in the repository's folder")


class ServerFailed(FilesError):
    """The server has no answers, whatever the pictures."""

    exit_code = 1
