"""What can go wrong in the dev cluster.

::

    DevClusterError         everything below; str() is what a person should read, the end of a log included
    ├── ToolUnavailable     this machine lacks what a tool is made with (cargo, apt, a Go for its platform)
    ├── BuildFailed         it was all there, and the build still failed
    ├── ServerFailed        a server ended early, or was not ready in time
    └── CommandFailed       kubectl said no, or did not answer in time
"""


class DevClusterError(Exception):
    """Base of all errors of the dev cluster."""


class ToolUnavailable(DevClusterError):
    """This machine cannot provide a tool; the message says what to install."""


class BuildFailed(DevClusterError):
    """A build failed or took too long; the message ends with the end of its log."""


class ServerFailed(DevClusterError):
    """A server ended or was not ready in time; the message ends with the end of its log."""


class CommandFailed(DevClusterError):
    """A command failed or took too long; the message ends with what it printed."""
