from .audit import Audit as Audit
from .exchange_rate import (
    ExchangeRate as ExchangeRate,
    exchange_rates as exchange_rates,
    rates_over_runs as rates_over_runs,
)
from .format import (
    format_estimate as format_estimate,
    format_gain as format_gain,
    format_interval as format_interval,
    format_share as format_share,
)
from .jobs import Job as Job, jobs_in as jobs_in, results_of as results_of, runs_in as runs_in
from .leaderboard import (
    Runs as Runs,
    Standing as Standing,
    conclusion as conclusion,
    rank_recipes as rank_recipes,
    render_standings as render_standings,
)
from .record import Record as Record
from .result import Ceiling as Ceiling, LISResult as LISResult, Placebo as Placebo, SliceEstimate as SliceEstimate
from .selection import corrected_best as corrected_best, simultaneous_band as simultaneous_band
from .snapshot import Snapshot as Snapshot
from .stopping import StopRule as StopRule, stop_reason as stop_reason
from .verdict import VERDICTS as VERDICTS, Judgement as Judgement, judge as judge
