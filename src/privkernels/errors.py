"""The exceptions that privkernels raises, each named after what is wrong.

Every message says what was expected, what came, and what to do. The command line prints the
message of a :class:`PrivkernelsError` on one line and exits with ``exit_code``.
"""

from __future__ import annotations


class PrivkernelsError(Exception):
    """Base of every error that privkernels raises on purpose."""

    exit_code = 2


class InvalidArgumentError(PrivkernelsError, ValueError):
    """An argument has a wrong type, shape, layout or value."""


class InvalidBudgetError(InvalidArgumentError):
    """An epsilon or delta is not positive and finite, or cannot be met."""


class EmptyDataError(PrivkernelsError, ValueError):
    """A data set, subset or collection holds no records."""


class TooFewRecordsError(PrivkernelsError, ValueError):
    """There are fewer records than the request needs."""


class TooFewMembersError(PrivkernelsError, ValueError):
    """A parameter collection has fewer members than the method needs."""


class MemberMismatchError(PrivkernelsError, ValueError):
    """Members differ in their tensor names, shapes or dtypes."""


class NonFiniteValueError(PrivkernelsError, ValueError):
    """A tensor holds NaN or infinity where a finite number is required."""


class UnsafeFormatError(PrivkernelsError, ValueError):
    """A file is a pickle (for example a .pt checkpoint); only safetensors are loaded."""


class CorruptFileError(PrivkernelsError, ValueError):
    """A file is truncated or is not in the format that it should have."""


class FileMissingError(PrivkernelsError, FileNotFoundError):
    """A file or folder that is needed does not exist."""


class OutputExistsError(PrivkernelsError, FileExistsError):
    """The output folder already holds something else."""


class DiskFullError(PrivkernelsError, OSError):
    """There is no room left to write a file; nothing half-written was left in its place."""


class DataUnavailableError(PrivkernelsError):
    """A data set is neither under the given root nor to be downloaded."""


class UnknownNameError(InvalidArgumentError):
    """A model, data set, method, attack or unit with this name does not exist."""


class ConfigurationChangedError(PrivkernelsError, ValueError):
    """An output folder was started with other settings than the ones now given."""


class BudgetExceededError(PrivkernelsError):
    """An operation would cost more than the ledger's budget for its data set; it was not made."""


class KeyReusedError(PrivkernelsError, ValueError):
    """A key and label were used before; the same noise twice reveals the difference of the results."""


class LedgerLockedError(PrivkernelsError):
    """Another process holds the ledger."""


class QualityNotReachedError(PrivkernelsError):
    """No try of the quality loop exceeded the accuracy threshold; the budget is spent."""


class NativeModuleError(PrivkernelsError, ImportError):
    """The compiled module is missing, or cannot run on this machine."""


class GraphCaptureError(PrivkernelsError, RuntimeError):
    """An operator was called while a CUDA graph is captured, but cannot be part of one (the message says why)."""


class MissingDependencyError(PrivkernelsError, ImportError):
    """An optional library is needed; the message names the extra to install."""
