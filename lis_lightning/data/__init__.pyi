from .split import PreferenceSplit as PreferenceSplit
