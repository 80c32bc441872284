"""Is this machine, and this installation, fit to run a model file? Each finding comes with its fix."""

from clip_toolkit.doctor.examination import examine
from clip_toolkit.doctor.finding import Finding, report

__all__ = ["Finding", "examine", "report"]
