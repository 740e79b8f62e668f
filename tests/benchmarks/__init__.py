"""Speed and memory goals: ``make bench``. Times are ratios of two things measured in turn within one run."""
