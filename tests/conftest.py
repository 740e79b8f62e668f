"""What holds for every test."""

from hypothesis import settings

# No example has a time limit (200 ms by default): on a busy machine any may take longer. All else is as in the profile
# that is active already: on CI that is Hypothesis' own, of the same examples in each run.
settings.register_profile("pl-distill", deadline=None)
settings.load_profile("pl-distill")
