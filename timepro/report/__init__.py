"""`timepro report`: runs side by side in one HTML page that needs nothing else."""

from timepro.report.page import write_report

__all__ = ["write_report"]
