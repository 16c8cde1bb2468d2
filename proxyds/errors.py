"""Everything that can go wrong and is the user's to mend, as one tree.

Each branch of the tree has one exit code, so that a script can tell what kind of thing went wrong; `--json` names the
class. A message says where, what was required, what was found and what to do. Anything else that escapes is a defect of
`proxyds`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141
"""As a shell shows of programs that are ended by the signal SIGPIPE."""


class ProxydsError(Exception):
    """Root of every error that `proxyds` raises on purpose.

    Args:
        message: What was required, what was found, what to do. It names the place itself where `place` is None.
        place: The file, folder or address at fault; stands before the message.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, place: Path | str | None = None) -> None:
        super().__init__(message)
        self.message, self.place = message, place

    def __str__(self) -> str:
        return self.message if self.place is None else f"{self.place}: {self.message}"

    def _render_traceback_(self) -> list[str]:
        """Gives notebooks and IPython the message alone, as a terminal shows it: the way through `proxyds` tells nobody what to mend."""
        return [f"{type(self).__name__}: {self}"]

    def show_folder_as(self, folder: Path, name: str) -> None:
        """Shows a place within a folder as one within an address: of a temporary folder nobody knows the path."""
        if isinstance(self.place, Path) and self.place.is_relative_to(folder):
            self.place = "/".join([name, *self.place.relative_to(folder).parts])


class ArgumentError(ProxydsError):
    """A Python program passes a value that the function does not take."""

    exit_code = 2


class BelowThresholdError(ProxydsError):
    """A proxy's check fell below its threshold, and nobody said that it is to be published all the same."""

    exit_code = 3


# The recipe


class RecipeError(ProxydsError):
    """A value in the recipe is not allowed; one message holds every problem found.

    Attributes:
        problems: For programs, each problem's `line`, `column`, `field` and `message`.
    """

    exit_code = 10
    problems: Sequence[Mapping[str, object]] = ()


class RecipeNotFoundError(RecipeError):
    """The recipe file does not exist or cannot be read."""


class RecipeSyntaxError(RecipeError):
    """The recipe is not a YAML 1.2 mapping."""


class DuplicateKeyError(RecipeError):
    """The same key stands twice in one mapping of the recipe."""


class UnknownNameError(RecipeError):
    """The recipe names a key, network, layer or method that is not registered."""


# What the recipe or an option asks for, and this machine lacks


class UnavailableError(ProxydsError):
    """Something asked for is not available here."""

    exit_code = 15


class PluginError(UnavailableError):
    """A plugin cannot be imported, offers no family of networks, takes a name that is taken, or is other code than a proxy was built with."""


class CallableError(UnavailableError):
    """Python code that a program hands over cannot be copied to workers, does not do what it must, or was not handed over."""


class MissingExtraError(UnavailableError):
    """Something asked for needs a package that is not installed."""


class DeviceError(UnavailableError):
    """There is no such device to compute on, or it does not compute in what the recipe asks for."""


# The data


class SourceError(ProxydsError):
    """The source cannot be used as it is."""

    exit_code = 20


class SourceNotFoundError(SourceError):
    """No data set at the place that the recipe names."""


class SplitNotFoundError(SourceError):
    """The source has no split of that name."""


class BadImageError(SourceError):
    """An image of the source cannot be decoded."""


class LabelError(SourceError):
    """The source has no usable labels: none at all, missing ones, or a single class."""


class StarvedLabelError(SourceError):
    """The ratio leaves a label with no sample."""


class ShortageError(SourceError):
    """Fewer samples can be drawn than the ratio asks for."""


class ChangedSourceError(SourceError):
    """The source is not the one that a proxy was made from."""


# Training


class TrainingError(ProxydsError):
    """A network could not be trained."""

    exit_code = 30


class DivergedError(TrainingError):
    """The training loss became infinite or not a number."""


class ChanceLevelError(TrainingError):
    """A probe network is no better than chance, so its outcomes say nothing."""


class SaturatedError(TrainingError):
    """Every probe network is right on every evaluation sample, so the method has nothing to choose by."""


class WorkerDiedError(TrainingError):
    """A worker process ended without a result (killed, or out of memory)."""


# Writing


class OutputError(ProxydsError):
    """The proxy cannot be written."""

    exit_code = 40


class OutputExistsError(OutputError):
    """The output folder holds something else; it is never touched."""


class NoSpaceError(OutputError):
    """The disk is full."""


class NoPermissionError(OutputError):
    """A file or folder may not be written."""


# Proxies


class ArtifactError(ProxydsError):
    """A folder is not a proxy that this version can read."""

    exit_code = 50


class VerificationError(ArtifactError):
    """A proxy's files differ from its manifest."""


class CardDriftError(ArtifactError):
    """A proxy's card is not what its records render to."""


# Evidence


class EvidenceError(ProxydsError):
    """The runs cannot support the statistics: too few architectures, or accuracies that are all the same."""

    exit_code = 60


class AccuracyTableError(EvidenceError):
    """A table of accuracies cannot be used, or misses architectures."""


# The Hub, addresses and the store


class RemoteError(ProxydsError):
    """The Hub, or another place on the network, did not do what was asked.

    Attributes:
        may_pass: Whether the same command may do better in a while.
        wait_seconds: How long the other side asks to wait before that.
    """

    exit_code = 70
    may_pass = True
    wait_seconds: int = 0


class OfflineError(RemoteError):
    """`HF_HUB_OFFLINE` is set, and the Hub would have to be asked."""

    may_pass = False


class RemoteNotFoundError(RemoteError):
    """There is no such repository, revision or address."""

    may_pass = False


class RemoteAccessError(RemoteError):
    """There is no token, or it does not allow what was asked."""

    may_pass = False


class TagExistsError(RemoteError):
    """The tag is there already, on other bytes. Tags are never moved."""

    may_pass = False


class PushError(RemoteError):
    """It cannot be published so: a tag of another version, or options that the place has no use for."""

    may_pass = False


class HeadMovedError(RemoteError):
    """Somebody else has changed a repository in the middle of a push."""


class StoreError(ProxydsError):
    """The store of finished work is at an address that did not do what was asked."""

    exit_code = RemoteError.exit_code  # no RemoteError: those are tried again, this one is what is left of them


class DamagedEntryError(StoreError):
    """Finished work has other bytes in the store than were written; it counts as not done from now on."""


# From the system's errors to these

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""A disk or quota that is full, as the system says it."""
_UNWRITABLE = {
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP),
    *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT),
}
"""A path that cannot be, and disks and network file systems that fail."""


@contextmanager
def translate_os_errors(what: str | Path, advice: str) -> Iterator[None]:
    """Turns what the system says to writing inside the block into errors that say what could not be written.

    Args:
        what: What was being written.
        advice: What to do, besides making room or asking for permission.

    Raises:
        NoSpaceError: The disk or the quota is full.
        NoPermissionError: A file or folder may not be written.
        OutputError: The path cannot be: a file stands where a folder must be, or a name is too long. Or the disk fails.
    """
    try:
        yield
    except OSError as error:
        # numpy's own writing fails without an errno: «... requested and ... written»
        is_short_write = error.errno is None and "written" in str(error)
        if is_short_write or error.errno in DISK_FULL:
            raise NoSpaceError(f"no space left to write it; free some space, or {advice}", place=what) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = f" ({error.filename})" if error.filename else ""
            raise NoPermissionError(
                f"may not be written{where}; give write permission, or {advice}", place=what
            ) from error
        if error.errno in _UNWRITABLE:
            raise OutputError(f"cannot be written: {error.strerror}; {advice}", place=what) from error
        raise
