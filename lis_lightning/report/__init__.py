"""Pictures and words for people: the records of one run, several or a sweep as a page, and as text for a terminal."""

from lis_lightning.report.page import write_report
from lis_lightning.report.runs import RecordedRun, find_runs, recorded_run

__all__ = ["RecordedRun", "find_runs", "recorded_run", "write_report"]
