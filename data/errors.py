"""Every error this project raises on purpose, as one tree.

    MystocksScanError
    ├── UsageError                 the caller asked for something that cannot be (exit 2)
    │   ├── SettingsError          a setting is missing or out of bounds
    │   ├── UnknownSymbolError     a code that no prefix fact covers, or that needs an exchange
    │   ├── FrameError             a bar frame that does not exist
    │   ├── ParameterError         an indicator's parameter is out of bounds, unknown or of the wrong type
    │   ├── ExpressionError        an expression of the rule language is not one
    │   ├── StrategyError          a strategy that cannot be loaded
    │   ├── EngineError            an engine that is not there
    │   ├── KernelError            a row kernel that does not keep to the kernels' language
    │   └── StoreOriginError       a store of one market opened for another
    ├── MarketDataError            the data cannot be what they should be (exit 1)
    │   ├── CalendarHorizonError   a date beyond what the calendar vouches for
    │   ├── StoreError             a file of the store is damaged or of an unknown format
    │   └── FeedError              a feed cannot go on
    │       ├── BannedError        the vendor has banned this address for a while
    │       └── RefusedError       the vendor refuses a whole batch for the sake of some codes in it
    ├── BusError                   the bus between processes cannot go on (exit 1)
    ├── ScanError                  a scan could not be completed (exit 1)
    └── StaleDataError             data are missing or older than asked for (exit 3)

`exit_code` is what the command line ends with when the error reaches it.
"""


class MystocksScanError(Exception):
    """Any error raised on purpose by this project."""

    exit_code = 1


class UsageError(MystocksScanError):
    """The caller asked for something that cannot be."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is missing or out of bounds."""


class UnknownSymbolError(UsageError):
    """A code that no prefix fact covers, or that means nothing without an exchange."""


class FrameError(UsageError):
    """A bar frame that does not exist."""


class ParameterError(UsageError):
    """An indicator's parameter is out of bounds, unknown or of the wrong type."""


class ExpressionError(UsageError):
    """An expression of the rule language that is not one; `column` is 1-based within the expression."""

    def __init__(self, message: str, *, column: int | None = None) -> None:
        super().__init__(message)
        self.column = column


class StrategyError(UsageError):
    """A strategy that cannot be loaded."""


class EngineError(UsageError):
    """An engine that is not there, or cannot run on this machine."""


class KernelError(UsageError):
    """A row kernel that does not keep to the kernels' language."""


class StoreOriginError(UsageError):
    """A store of one market opened for another."""


class MarketDataError(MystocksScanError):
    """The data cannot be what they should be."""


class CalendarHorizonError(MarketDataError):
    """A date beyond what the calendar vouches for."""


class StoreError(MarketDataError):
    """A file of the store is damaged or of an unknown format."""


class FeedError(MarketDataError):
    """A feed cannot go on; `reason` says why in one word, by which it is counted."""

    def __init__(self, message: str, *, reason: str = "lost") -> None:
        super().__init__(message)
        self.reason = reason


class BannedError(FeedError):
    """The vendor has banned this address for a while: asking again makes it longer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="ban")


class RefusedError(FeedError):
    """The vendor refuses a whole batch; `symbols` are those that it names as the cause, none where it names none."""

    def __init__(self, message: str, *, symbols: frozenset[str] = frozenset()) -> None:
        super().__init__(message, reason="refused")
        self.symbols = symbols


class BusError(MystocksScanError):
    """The bus between processes cannot go on."""


class ScanError(MystocksScanError):
    """A scan could not be completed."""


class StaleDataError(MystocksScanError):
    """Data are missing, or older than was asked for."""

    exit_code = 3
