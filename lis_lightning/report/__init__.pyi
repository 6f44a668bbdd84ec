from .curve import curve_figure as curve_figure
from .page import write_report as write_report
from .runs import RecordedRun as RecordedRun, find_runs as find_runs, recorded_run as recorded_run
from .snapshot_text import snapshot_table as snapshot_table
