"""The artifact cache: calibration sequences, statistics, schedule signals and dense evaluations that runs share."""
