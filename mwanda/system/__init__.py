"""The machine a run is on: its files, devices and processes; nothing here knows what a run does."""
