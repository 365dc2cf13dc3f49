"""What runs share: calibration blocks, one-shot statistics, signals of schedules, and the dense model's evaluation."""
